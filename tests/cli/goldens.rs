//! `goldens/*.txt` hold what Docker's own client printed for `fixtures/*.json`
//! (a stand-in daemon served them): the same command lines through our parsers
//! and renderers must give the same text.

use std::time::SystemTime;

use dockless::engine::view::{
    Check, Container, Diagnosis, LinkDiagnosis, Network, Summary, Verdict,
};
use dockless::front::cli::args::container::{Inspect, Ps};
use dockless::front::cli::args::network::{Inspect as NetworkInspect, Ls};
use dockless::front::cli::args::usage;
use dockless::front::cli::render::doctor::diagnosis;
use dockless::front::cli::verbs::{
    VERBS, container_objects, ls_text, network_objects, ps_text, rows_of_ps,
};

/// The moment at which the fixtures' "5 seconds ago" is true.
fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-23T12:00:00Z").unwrap()
}

fn containers() -> Vec<Container> {
    serde_json::from_str(include_str!("fixtures/containers.json")).unwrap()
}

/// As `ps` has them.
fn summaries() -> Vec<Summary> {
    let summary = |c: Container| Summary {
        id: c.id,
        name: c.name.trim_start_matches('/').to_owned(),
        created: c.created,
        image: c.config.image,
        image_id: c.image,
        argv: [vec![c.path], c.args].concat(),
        status: c.state.status,
        exit_code: c.state.exit_code,
        started_at: c.state.started_at,
        finished_at: c.state.finished_at,
        labels: c.config.labels,
        ports: c.network_settings.ports,
        bound: c.host_config.port_bindings.into_keys().collect(),
        exposed: c.config.exposed_ports.into_keys().collect(),
        networks: c
            .network_settings
            .networks
            .into_iter()
            .map(|(name, endpoint)| (name, endpoint.network_id))
            .collect(),
        mounts: c.mounts,
        ..Summary::default()
    };
    containers().into_iter().map(summary).collect()
}

fn networks() -> Vec<Network> {
    serde_json::from_str(include_str!("fixtures/networks.json")).unwrap()
}

/// A command line as a shell splits it: blanks, "…" and \" are enough here.
pub(crate) fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut some) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted && matches!(chars.peek(), Some('"' | '\\')) => {
                word.extend(chars.next());
            }
            '"' => {
                quoted = !quoted;
                some = true;
            }
            ' ' if !quoted => {
                if some || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                some = false;
            }
            c => word.push(c),
        }
    }
    if some || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Command lines with all that follows them, comments left out.
pub(crate) fn sections(text: &str) -> Vec<(&str, String)> {
    let mut out: Vec<(&str, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        if let Some(command) = line.strip_prefix("$ ") {
            out.push((command.trim_end_matches('\n'), String::new()));
        } else if let Some((_, body)) = out.last_mut() {
            body.push_str(line);
        }
    }
    out
}

fn parsed<A: clap::FromArgMatches>(path: &str, argv: &[String]) -> A {
    let verb = VERBS.iter().find(|v| v.syntax.name() == path).unwrap();
    let matches = usage::parse(&verb.syntax, verb.parser(), argv).unwrap();
    A::from_arg_matches(&matches).unwrap()
}

fn run(line: &str) -> dockless::base::Result<String> {
    let words = split(line);
    let argv = |n: usize| words[n..].to_vec();
    match words[0].as_str() {
        "ps" => {
            let a: Ps = parsed("ps", &argv(1));
            let mut list = rows_of_ps(&a, summaries())?;
            if a.size {
                for c in &mut list {
                    (c.size_rw, c.size_root_fs) = (Some(12_288), Some(1_234_567));
                }
            }
            ps_text(&a, &list, now(), false)
        }
        "inspect" => {
            let a: Inspect = parsed("inspect", &argv(1));
            let wanted = |c: &Container| a.names.iter().any(|n| c.name == format!("/{n}"));
            let list: Vec<_> = containers().into_iter().filter(wanted).collect();
            container_objects(&list, a.format.as_deref().unwrap_or_default())
        }
        "network" if words[1] == "ls" => {
            ls_text(&parsed::<Ls>("network ls", &argv(2)), networks(), false)
        }
        "network" => {
            let a: NetworkInspect = parsed("network inspect", &argv(2));
            let list: Vec<_> = networks()
                .into_iter()
                .filter(|n| a.names.contains(&n.name))
                .collect();
            network_objects(&list, a.format.as_deref().unwrap_or_default())
        }
        other => panic!("no golden for {other}"),
    }
}

fn check(text: &str) {
    let mut wrong = Vec::new();
    for (line, wanted) in sections(text) {
        let got = match run(line) {
            Ok(out) => out,
            Err(e) => format!("! {e}\n"),
        };
        if got != wanted {
            wrong.push(format!("$ {line}\n--- wanted\n{wanted}--- got\n{got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lists_as_docker() {
    check(include_str!("goldens/lists.txt"));
}

#[test]
fn inspect_as_docker() {
    check(include_str!("goldens/inspect.txt"));
}

#[test]
fn where_docker_is_not_followed() {
    check(include_str!("goldens/own.txt"));
}

#[test]
fn whole_objects() {
    insta::with_settings!({snapshot_path => "goldens", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("container", container_objects(&containers()[..1], "").unwrap());
        insta::assert_snapshot!("network", network_objects(&networks()[1..2], "").unwrap());
    });
}

#[test]
fn nothing_reaches_a_terminal_raw() {
    let mut list = summaries();
    list[0].name = "a\x1b]0;x\x07b".into();
    list[0].labels.insert("k".into(), "\u{9b}2J".into());
    let a: Ps = parsed("ps", &split("--format \"{{.Names}} {{.Labels}}\" -n 1"));
    let list = rows_of_ps(&a, list).unwrap();
    let shown = ps_text(&a, &list, now(), true).unwrap();
    assert!(!shown.contains(['\x1b', '\x07', '\u{9b}']), "{shown:?}");
    let piped = ps_text(&a, &list, now(), false).unwrap();
    assert!(piped.contains('\x1b'));
}

#[test]
fn filters_of_ps() {
    let names = |line: &str| -> Vec<String> {
        let a: Ps = parsed("ps", &split(line));
        let list = rows_of_ps(&a, summaries()).unwrap();
        list.iter().map(|c| c.name.clone()).collect()
    };
    for (line, wanted) in [
        ("", &["mac1", "ports", "pausing"][..]),
        ("-a", &["mac1", "ports", "pausing", "gone", "never"]),
        ("-f name=mac", &["mac1"]),
        ("-f name=^/mac1$", &["mac1"]),
        ("-f name=^ac1$", &[]),
        ("-f name=mac1 -f name=ports", &["mac1", "ports"]),
        ("-f id=^b2c3", &["ports"]),
        ("-f status=exited", &["gone"]),
        ("-f status=exited -f status=created", &["gone", "never"]),
        ("-f status=paused", &["pausing"]),
        ("-a -f exited=137", &["gone"]),
        ("-f label=tier", &["mac1", "ports"]),
        ("-f label=tier=back", &["ports"]),
        ("-f label=tier -f label=com.example.role=web", &["mac1"]),
        ("-f network=zweit", &["ports"]),
        ("-f network=2b3c2b3c", &["ports"]),
        (
            "-a -f ancestor=tester",
            &["mac1", "ports", "pausing", "gone", "never"],
        ),
        ("-a -f ancestor=other", &[]),
        ("-f publish=5000", &["mac1"]),
        // The container's ports, in a range; not the host's.
        ("-f publish=8000-8002/tcp", &["ports"]),
        ("-f publish=80", &["ports"]),
        ("-f publish=8080", &[]),
        ("-f publish=9001", &[]),
        ("-f publish=81", &[]),
        ("-f expose=81", &["ports"]),
        ("-f expose=53/udp", &["ports"]),
        ("-f before=ports", &["pausing"]),
        ("-f since=ports", &["mac1"]),
        (
            "-f health=none -f is-task=false",
            &["mac1", "ports", "pausing"],
        ),
        ("-f NAME=mac1", &["mac1"]),
        ("-n 1 -f status=exited", &["gone"]),
    ] {
        assert_eq!(names(line), wanted, "{line}");
    }
    let refused = |line: &str| {
        let a: Ps = parsed("ps", &split(line));
        rows_of_ps(&a, summaries()).unwrap_err().to_string()
    };
    assert_eq!(refused("-f foo=bar"), "invalid filter 'foo'");
    assert_eq!(
        refused("-f status=x"),
        "invalid value for state (x): must be one of created, running, paused, restarting, removing, exited, dead"
    );
    assert_eq!(refused("-f exited=x"), "invalid filter 'exited=x'");
    assert_eq!(refused("-f before=nope"), "No such container: nope");
}

#[test]
fn filters_of_network_ls() {
    let names = |line: &str| -> String {
        let mut a: Ls = parsed("network ls", &split(line));
        a.format = Some("{{.Name}}".into());
        ls_text(&a, networks(), false).unwrap().replace('\n', " ")
    };
    for (line, wanted) in [
        ("-f driver=macvlan", "mac1 zweit "),
        ("-f driver=host -f driver=null", "host none "),
        ("-f type=custom", "mac1 zweit "),
        ("-f type=builtin", "host none "),
        ("-f name=^m", "mac1 "),
        ("-f id=2b3c", "zweit "),
        ("-f label=a", "mac1 "),
        ("-f label=a=2", ""),
        ("-f scope=local", "host mac1 none zweit "),
        ("-f scope=swarm", ""),
        ("-f dangling=true", "zweit "),
        ("-f dangling=false -f driver=macvlan", "mac1 "),
    ] {
        assert_eq!(names(line), wanted, "{line}");
    }
    let a: Ls = parsed("network ls", &split("-f x=y"));
    assert_eq!(
        ls_text(&a, networks(), false).unwrap_err().to_string(),
        "invalid filter 'x'"
    );
}

#[test]
fn doctor_for_people() {
    let check = |name, verdict, found: &str, advice: Option<&str>| Check {
        name,
        verdict,
        found: found.into(),
        advice: advice.map(Into::into),
    };
    let link = |link: &str, networks: &[&str], checks| LinkDiagnosis {
        link: link.into(),
        networks: networks.iter().map(|&n| n.into()).collect(),
        checks,
    };
    let down = "ip link set eth1 up";
    let found = Diagnosis {
        verdict: Verdict::Problem,
        machine: vec![check("kernel", Verdict::Ok, "6.18.44", None)],
        links: vec![
            link(
                "eth1",
                &["mac1", "mac2"],
                vec![
                    check("carrier", Verdict::Problem, "eth1 is down", Some(down)),
                    check(
                        "duplicate address",
                        Verdict::Unknown,
                        "not\x1b[2J asked",
                        None,
                    ),
                ],
            ),
            link(
                "eth2",
                &[],
                vec![check("MTU", Verdict::Warning, "576", Some("x"))],
            ),
        ],
    };
    assert_eq!(
        diagnosis(&found),
        include_str!("goldens/doctor.txt"),
        "{}",
        diagnosis(&found)
    );
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["Verdict"], "problem");
    assert_eq!(json["Links"][0]["Checks"][0]["Advice"], down);
    assert_eq!(json["Machine"][0]["Advice"], serde_json::Value::Null);
}
