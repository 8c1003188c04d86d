//! Kernel tests of `doctor` on Wi-Fi, with radios that the kernel simulates
//! (mac80211_hwsim), `iw` and hostapd. What nl80211 says of an interface is
//! judged by frames: whether a container's arrive, and whether the gateway
//! answers a foreign MAC, which `doctor` asks by itself. `scripts/vm-test --wifi` has a
//! kernel with such radios.

use std::fs;
use std::process::{Child, Command, Stdio};

use dockless::lab::{Lab, Machine};
use serde_json::Value;

use crate::generic::Generic;
use crate::harness::{Test, Verdict, failed};
use crate::judge::{self, ask, eventually, said};

pub(crate) fn tests() -> Vec<Test> {
    [
        Test::new(station),
        Test::new(access_point),
        Test::new(mesh),
        Test::new(ad_hoc),
        Test::new(what_is_no_station),
    ]
    .map(|test| test.needs(&["ip", "iw"]).limit_s(120))
    .into()
}

/// A program on one of the machines; it ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A radio of the host's (wlan0, 10.0.9.4) and one of the gateway's (wlan1),
/// which hear each other: those that one namespace makes do (the driver's
/// "netgroup"), wherever they go then.
fn air() -> Verdict<Lab> {
    /// HWSIM_CMD_NEW_RADIO
    const NEW_RADIO: u8 = 4;
    let generic = Generic::open()?;
    let missing = "this kernel has no simulated radios (mac80211_hwsim)";
    let hwsim = generic.family("MAC80211_HWSIM", missing)?;
    let lan = Lab::here(0)?;
    for _ in 0..2 {
        if let Err(errno) = generic.ask(hwsim, (NEW_RADIO, 1), &[], &[])? {
            return failed(format!("no radio: {errno}"));
        }
    }
    let info = iw("dev wlan1 info")?;
    let number = info
        .split_once("wiphy ")
        .and_then(|(_, rest)| rest.lines().next());
    let there = lan.gateway.spawn(Command::new("sleep").arg("60"))?;
    let there = Running(there);
    iw(&format!(
        "phy#{} set netns {}",
        number.unwrap_or_default().trim(),
        there.0.id()
    ))?;
    ip("addr add 10.0.9.4/24 dev wlan0")?;
    Ok(lan)
}

fn words<'a>(program: &'a str, line: &'a str) -> Vec<&'a str> {
    [program].into_iter().chain(line.split(' ')).collect()
}

fn iw(line: &str) -> Verdict<String> {
    Ok(judge::run(&words("iw", line))?.success()?.stdout)
}

fn ip(line: &str) -> Verdict {
    judge::run(&words("ip", line))?.success().map(drop)
}

fn at_gateway(lan: &Lab, program: &str, line: &str) -> Verdict {
    judge::on(&lan.gateway, &words(program, line))?
        .success()
        .map(drop)
}

/// An open access point, which also takes four-address stations: each gets an
/// interface of its own in the bridge, if there is one.
fn hostapd(lan: &Lab, on: Option<&Machine>, interface: &str, more: &str) -> Verdict<Running> {
    judge::installed("hostapd")?;
    let path = format!("/run/tmp/{interface}.conf");
    let text = format!(
        "interface={interface}\ndriver=nl80211\nssid=air\nhw_mode=g\nchannel=1\nwds_sta=1\n{more}"
    );
    fs::write(&path, text)?;
    let mut command = Command::new("hostapd");
    command
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = match on {
        Some(machine) => machine.spawn(&mut command)?,
        None => command.spawn()?,
    };
    let running = Running(child);
    let shown = words("iw", "dev INTERFACE info")
        .iter()
        .map(|word| match *word {
            "INTERFACE" => interface,
            word => word,
        })
        .collect::<Vec<_>>();
    eventually("the access point has its channel", 10, || {
        let info = match on {
            Some(_) => judge::on(&lan.gateway, &shown)?,
            None => judge::run(&shown)?,
        };
        Ok(info.stdout.contains("type AP") && info.stdout.contains("channel 1 "))
    })?;
    Ok(running)
}

/// `iw` says "connected to …"; the link's carrier comes then.
fn connect(on: Option<&Lab>, interface: &str) -> Verdict {
    let line = format!("dev {interface} connect -w air 2412");
    let connected = match on {
        Some(lan) => judge::on(&lan.gateway, &words("iw", &line))?,
        None => judge::run(&words("iw", &line))?,
    };
    connected.success().map(drop)
}

/// The gateway hears the host.
fn gateway_answers() -> Verdict {
    eventually("10.0.9.1 answers the host", 20, || {
        let ping = ["ping", "-c", "1", "-W", "1", "10.0.9.1"];
        Ok(judge::run(&ping)?.is_success())
    })
}

/// What all of `doctor` says of wlan0: verdict, finding and advice of a check.
struct Said(Value);

impl Said {
    fn now() -> Verdict<Self> {
        let answer = ask(&["doctor", "--json", "wlan0"])?;
        Ok(Self(serde_json::from_str(&answer.stdout)?))
    }

    fn of(&self, name: &str) -> [&str; 3] {
        let checks = self.0["Links"][0]["Checks"].as_array();
        let check = checks.and_then(|all| all.iter().find(|c| c["Name"] == name));
        let check = check.unwrap_or_else(|| panic!("nothing of {name}: {}", self.0));
        ["Verdict", "Found", "Advice"].map(|key| check[key].as_str().unwrap_or_default())
    }

    /// Wi-Fi is `verdict`, and so is what became of a foreign MAC.
    fn is(&self, verdict: &str, found: &str) {
        let wifi = self.of("Wi-Fi");
        assert!(wifi[0] == verdict && wifi[1].contains(found), "{wifi:?}");
        let foreign = self.of("foreign MAC");
        assert_eq!(foreign[0], verdict, "{foreign:?}");
    }
}

/// Whether a container on such a network gets an answer from the gateway.
fn container_pings(driver: &str) -> Verdict<bool> {
    let create = format!(
        "network create -d {driver} --subnet 10.0.9.0/24 --gateway 10.0.9.1 -o parent=wlan0 air"
    );
    said(&create.split(' ').collect::<Vec<_>>())?;
    let run = "run --rm --network air --ip 10.0.9.77 tester ping -c 4 -W 1 10.0.9.1";
    let answer = ask(&run.split(' ').collect::<Vec<_>>())?;
    if !matches!(answer.code, Some(0 | 1)) {
        return failed(format!(
            "{:?}: {}{}",
            answer.code, answer.stdout, answer.stderr
        ));
    }
    said(&["network", "rm", "air"])?;
    Ok(answer.is_success())
}

/// An access point takes no other MAC of it, until both use four addresses.
fn station() -> Verdict {
    let lan = air()?;
    at_gateway(&lan, "ip", "link add br9 up type bridge")?;
    at_gateway(&lan, "ip", "addr add 10.0.9.1/24 dev br9")?;
    let _point = hostapd(&lan, Some(&lan.gateway), "wlan1", "bridge=br9\n")?;
    ip("link set wlan0 up")?;
    connect(None, "wlan0")?;
    gateway_answers()?;
    let said = Said::now()?;
    said.is("problem", "wlan0 is a Wi-Fi station");
    let advice = said.of("Wi-Fi")[2];
    assert!(advice.contains("ipvlan"), "{advice}");
    assert!(!container_pings("macvlan")?);
    // The advice is right: the one way …
    assert!(container_pings("ipvlan")?);
    // … and the other.
    let command = advice.rsplit("iw ").next().unwrap_or_default();
    let command = command.trim_end_matches(')');
    assert!(command.ends_with("4addr on"), "{advice}");
    iw("dev wlan0 disconnect")?;
    iw(command)?;
    connect(None, "wlan0")?;
    gateway_answers()?;
    Said::now()?.is("ok", "four addresses");
    assert!(container_pings("macvlan")?);
    Ok(())
}

fn access_point() -> Verdict {
    let lan = air()?;
    let _point = hostapd(&lan, None, "wlan0", "")?;
    at_gateway(&lan, "ip", "addr add 10.0.9.1/24 dev wlan1")?;
    at_gateway(&lan, "ip", "link set wlan1 up")?;
    connect(Some(&lan), "wlan1")?;
    gateway_answers()?;
    Said::now()?.is("ok", "access point");
    assert!(container_pings("macvlan")?);
    Ok(())
}

/// Both sides join a network that needs no access point.
fn both_join(kind: &str, join: &str) -> Verdict<Lab> {
    let lan = air()?;
    at_gateway(&lan, "ip", "addr add 10.0.9.1/24 dev wlan1")?;
    for (line, program) in [
        ("dev wlanN set type KIND", "iw"),
        ("link set wlanN up", "ip"),
        (join, "iw"),
    ] {
        let line = line.replace("KIND", kind);
        judge::run(&words(program, &line.replace('N', "0")))?.success()?;
        at_gateway(&lan, program, &line.replace('N', "1"))?;
    }
    gateway_answers()?;
    Ok(lan)
}

fn mesh() -> Verdict {
    let _lan = both_join("mp", "dev wlanN mesh join air freq 2412")?;
    Said::now()?.is("ok", "mesh");
    assert!(container_pings("macvlan")?);
    Ok(())
}

fn ad_hoc() -> Verdict {
    // With the cell's number, so that not each begins one of its own.
    let join = "dev wlanN ibss join air 2412 fixed-freq 02:ce:11:00:00:01";
    let _lan = both_join("ibss", join)?;
    let said = Said::now()?;
    said.is("problem", "ad-hoc");
    assert!(said.of("Wi-Fi")[2].contains("ipvlan"));
    assert!(!container_pings("macvlan")?);
    assert!(container_pings("ipvlan")?);
    Ok(())
}

fn what_is_no_station() -> Verdict {
    let _lan = air()?;
    let wifi = |link: &str| -> Verdict<[String; 3]> {
        let answer = ask(&["doctor", "--json", "--no-probe", link])?;
        let said = Said(serde_json::from_str(&answer.stdout)?);
        Ok(said.of("Wi-Fi").map(str::to_owned))
    };
    // Not yet connected, it is one all the same.
    assert_eq!(wifi("wlan0")?[0], "problem");
    // /sys is another namespace's here, so that nl80211 alone can have told.
    assert!(!fs::exists("/sys/class/net/wlan0")?);
    iw("dev wlan0 set type monitor")?;
    let [verdict, found, _] = wifi("wlan0")?;
    assert_eq!(verdict, "unknown", "{found}");
    assert!(found.contains("type 6"), "{found}");
    assert_eq!(wifi("eth1")?[0], "ok");
    // Networks of ipvlan have no MACs of their own.
    iw("dev wlan0 set type managed")?;
    said(&[
        "network",
        "create",
        "-d",
        "ipvlan",
        "--subnet=10.0.9.0/24",
        "-o",
        "parent=wlan0",
        "air",
    ])?;
    assert_eq!(wifi("wlan0")?[0], "ok");
    said(&["network", "rm", "air"]).map(drop)
}
