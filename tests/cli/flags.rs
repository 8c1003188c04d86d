//! `docker-flags.txt` lists every flag of Docker 28's client for the commands
//! that dockless has: each is taken, or refused by its name.

use dockless::front::cli::args::refused;
use dockless::front::cli::verbs::VERBS;

#[test]
fn every_flag_of_docker_has_an_answer() {
    let mut missing = Vec::new();
    let mut seen = 0;
    for line in include_str!("docker-flags.txt").lines() {
        if line.starts_with('#') {
            continue;
        }
        let (path, flag) = line.rsplit_once(' ').unwrap();
        let (short, long) = flag.split_once('/').unwrap();
        seen += 1;
        let Some(verb) = VERBS.iter().find(|v| v.syntax.paths.contains(&path)) else {
            missing.push(format!("{path}: no such command"));
            continue;
        };
        let parser = verb.parser();
        let taken = parser.get_arguments().find(|a| a.get_long() == Some(long));
        let taken_short = taken.and_then(clap::Arg::get_short);
        let refused_long = refused::find(verb.syntax.refused, &format!("--{long}"));
        let refused_short = refused::find(verb.syntax.refused, &format!("-{short}"));
        let ok = match (taken, refused_long) {
            (Some(_), None) => short.is_empty() || taken_short == short.chars().next(),
            (None, Some(_)) => short.is_empty() || refused_short == Some(long),
            _ => false,
        };
        if !ok {
            missing.push(line.to_owned());
        }
    }
    assert!(seen > 150, "the list is cut short: {seen}");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_command_of_docker_has_an_answer() {
    for path in include_str!("docker-commands.txt").lines() {
        let here = VERBS.iter().any(|v| v.syntax.paths.contains(&path));
        let refused = refused::COMMANDS.contains(&path);
        assert!(here != refused, "{path}");
    }
}

#[test]
fn parsers_are_sound() {
    for verb in VERBS {
        verb.parser().debug_assert();
        verb.manual().debug_assert();
    }
}
