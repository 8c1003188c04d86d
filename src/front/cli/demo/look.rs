//! What the walk looks at, and the claims that answers must meet.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::Value;

use super::stage::{Answer, Stop};
use super::walk::{LIMIT, LISTEN, Outcome, Walk};
use crate::lab::Machine;

impl Walk<'_> {
    pub(super) fn equal(&mut self, claim: &str, got: &Value, wanted: &str) {
        let holds = match got.as_str() {
            Some(text) if text == wanted => Ok(()),
            _ => Err(format!("{got} instead of {wanted:?}")),
        };
        self.stage.check(claim, holds);
    }

    /// `/json` as seen from a machine of the lab.
    pub(super) fn report(
        &mut self,
        name: &str,
        machine: &Machine,
        server: SocketAddrV4,
    ) -> Outcome<Value> {
        self.stage
            .typed(name, &format!("curl http://{server}/json"));
        let answer = {
            let _busy = self.stage.busy("waiting for the page");
            machine.get(server, "/json", LIMIT)
        };
        let report = answer
            .map_err(|e| e.to_string())
            .and_then(|answer| serde_json::from_str(&answer.body).map_err(|e| e.to_string()));
        match report {
            Ok(report) => {
                self.stage.shown(&summary(&report));
                Ok(report)
            }
            Err(why) => Err(match self.stage.demand("the page answers", Err(why)) {
                Err(stop) => stop,
                Ok(()) => Stop,
            }),
        }
    }

    /// The container's ping to the host and the host's to the container.
    pub(super) fn both_pings(&mut self, options: &[&str]) -> (Answer, Answer) {
        let inside = [&["exec", "mac1", "ping"], options, &["10.0.2.4"]].concat();
        let outside = [options, &["10.0.2.5"]].concat();
        let (stage, program) = (&*self.stage, &self.stage.program);
        let (from_inside, from_outside) = std::thread::scope(|scope| {
            let host = program.applet("ping", &outside);
            let other = scope.spawn(move || stage.run("ping", host));
            let inside = stage.run("ping", program.dockless(&inside));
            (inside, other.join())
        });
        let from_outside = from_outside.unwrap_or_else(|_| Answer {
            code: None,
            text: String::from("the thread panicked"),
        });
        self.stage
            .typed("", &format!("dockless {}", inside.join(" ")));
        self.stage.shown(&from_inside.text);
        self.stage.typed("", &format!("ping {}", outside.join(" ")));
        self.stage.shown(&from_outside.text);
        (from_inside, from_outside)
    }

    pub(super) fn pings_work(&mut self) {
        let (inside, outside) = self.both_pings(&["-c", "1"]);
        let answered = &["1 received, 0% packet loss"];
        self.stage
            .check("the container pings the host", works(&inside, answered));
        self.stage
            .check("the host pings the container", works(&outside, answered));
    }

    /// Two machines ask the LAN who has an address: one as before any packet,
    /// one as before taking an address. Each must get one answer, both the same.
    pub(super) fn answers_once(&mut self, ip: Ipv4Addr, what: &str) {
        let mut answers = Vec::new();
        let probes = [
            (
                "other1",
                self.other(0),
                self.other(0).ip,
                format!("arping -I eth0 {ip}"),
            ),
            (
                "other2",
                self.other(1),
                Ipv4Addr::UNSPECIFIED,
                format!("arping -D -I eth0 {ip}"),
            ),
        ];
        for (name, machine, tell, line) in probes {
            self.stage.typed(name, &line);
            match machine.who_has(ip, tell, LISTEN) {
                Ok(macs) => {
                    let text: Vec<_> = macs.iter().map(|mac| format!("{ip} is at {mac}")).collect();
                    self.stage.shown(&text.join("\n"));
                    answers.push(macs);
                }
                Err(e) => self.stage.shown(&e.to_string()),
            }
        }
        let holds = match answers.as_slice() {
            [one, other] if one.len() == 1 && one == other => Ok(()),
            _ => Err(format!("answers: {answers:?}")),
        };
        self.stage
            .check(&format!("{what} is answered for once"), holds);
    }
}

fn ended(answer: &Answer) -> String {
    match answer.code {
        Some(code) => format!("exit code {code}"),
        None => "killed by a signal".to_owned(),
    }
}

pub(super) fn is_id(answer: &Answer) -> Result<(), String> {
    let line = answer.line();
    let hex = line.len() == 64 && line.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match hex && answer.worked() {
        true => Ok(()),
        false => Err(ended(answer)),
    }
}

pub(super) fn contains(answer: &Answer, texts: &[&str]) -> Result<(), String> {
    match texts.iter().find(|text| !answer.text.contains(**text)) {
        None => Ok(()),
        Some(text) => Err(format!("{text:?} is missing")),
    }
}

pub(super) fn works(answer: &Answer, texts: &[&str]) -> Result<(), String> {
    match answer.worked() {
        true => contains(answer, texts),
        false => Err(ended(answer)),
    }
}

pub(super) fn fails(answer: &Answer, texts: &[&str]) -> Result<(), String> {
    match answer.code {
        Some(1) => contains(answer, texts),
        _ => Err(format!("{} instead of 1", ended(answer))),
    }
}

pub(super) fn interface(report: &Value, name: &str) -> Value {
    let list = report["interfaces"].as_array();
    list.and_then(|list| list.iter().find(|i| i["name"] == name))
        .cloned()
        .unwrap_or_default()
}

/// A report in one line; the whole would fill the screen.
fn summary(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let eth0 = interface(report, "eth0");
    format!(
        "id {}, eth0 {} {}, gateway {}, client {}",
        text(&report["id"]),
        text(&eth0["addresses"][0]),
        text(&eth0["mac"]),
        text(&report["routes"][0]["gateway"]),
        text(&report["client"]["address"])
    )
}
