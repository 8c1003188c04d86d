//! Which command is called what. The order is that of the manual.

use clap::CommandFactory;

use super::super::args::{Arity, Syntax, container, machine, network, refused, run};
use super::{Verb, containers, inspect, lifecycle, networks, process, stats, typed};

const PLAIN: Syntax = Syntax {
    paths: &[],
    about: "",
    usage: "",
    arity: Arity::NONE,
    hidden: false,
    refused: &[],
};

const SOME: Syntax = Syntax {
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    arity: Arity::at_least(1),
    ..PLAIN
};

/// `$args` is the clap type, `$does` what is done with it.
macro_rules! verb {
    ($args:ty, $does:path, $base:ident { $($field:ident: $value:expr),* $(,)? }) => {
        Verb {
            syntax: Syntax { $($field: $value,)* ..$base },
            flags: <$args as CommandFactory>::command,
            run: |front, syntax, matches| $does(front, syntax, typed::<$args>(matches)?),
        }
    };
}

pub static VERBS: &[Verb] = &[
    verb!(
        run::Run,
        lifecycle::run,
        PLAIN {
            paths: &["run", "container run"],
            about: "Create and run a new container from an image",
            usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
            arity: Arity::at_least(1),
            refused: refused::RUN,
        }
    ),
    verb!(
        container::Exec,
        process::exec,
        PLAIN {
            paths: &["exec", "container exec"],
            about: "Execute a command in a running container",
            usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
            arity: Arity::at_least(2),
            refused: refused::EXEC,
        }
    ),
    verb!(
        container::Ps,
        containers::ps,
        PLAIN {
            paths: &["ps", "container ls", "container list", "container ps"],
            about: "List containers",
            usage: "[OPTIONS]",
        }
    ),
    verb!(
        container::Inspect,
        inspect::any,
        PLAIN {
            paths: &["inspect"],
            about: "Return low-level information on containers and networks",
            usage: "[OPTIONS] NAME|ID [NAME|ID...]",
            arity: Arity::at_least(1),
        }
    ),
    verb!(
        container::InspectContainer,
        inspect::container,
        SOME {
            paths: &["container inspect"],
            about: "Display detailed information on one or more containers",
        }
    ),
    verb!(
        container::Stats,
        stats::stats,
        PLAIN {
            paths: &["stats", "container stats"],
            about: "Display a live stream of container(s) resource usage statistics",
            usage: "[OPTIONS] [CONTAINER...]",
            arity: Arity::at_least(0),
        }
    ),
    verb!(
        container::Logs,
        process::logs,
        PLAIN {
            paths: &["logs", "container logs"],
            about: "Fetch the logs of a container",
            usage: "[OPTIONS] CONTAINER",
            arity: Arity::exactly(1),
            refused: refused::LOGS,
        }
    ),
    verb!(
        container::Attach,
        process::attach,
        PLAIN {
            paths: &["attach", "container attach"],
            about: "Attach local standard input, output, and error streams to a running container",
            usage: "[OPTIONS] CONTAINER",
            arity: Arity::exactly(1),
        }
    ),
    verb!(
        container::Stop,
        lifecycle::stop,
        SOME {
            paths: &["stop", "container stop"],
            about: "Stop one or more running containers",
        }
    ),
    verb!(
        container::Kill,
        lifecycle::kill,
        SOME {
            paths: &["kill", "container kill"],
            about: "Kill one or more running containers",
        }
    ),
    verb!(
        container::Start,
        lifecycle::start,
        SOME {
            paths: &["start", "container start"],
            about: "Start one or more stopped containers",
            refused: refused::START,
        }
    ),
    verb!(
        container::Stop,
        lifecycle::restart,
        SOME {
            paths: &["restart", "container restart"],
            about: "Restart one or more containers",
        }
    ),
    verb!(
        container::Names,
        lifecycle::pause,
        SOME {
            paths: &["pause", "container pause"],
            about: "Pause all processes within one or more containers",
            usage: "CONTAINER [CONTAINER...]",
        }
    ),
    verb!(
        container::Names,
        lifecycle::unpause,
        SOME {
            paths: &["unpause", "container unpause"],
            about: "Unpause all processes within one or more containers",
            usage: "CONTAINER [CONTAINER...]",
        }
    ),
    verb!(
        container::Names,
        lifecycle::wait,
        SOME {
            paths: &["wait", "container wait"],
            about: "Block until one or more containers stop, then print their exit codes",
            usage: "CONTAINER [CONTAINER...]",
        }
    ),
    verb!(
        container::Rm,
        lifecycle::rm,
        SOME {
            paths: &["rm", "container rm", "container remove"],
            about: "Remove one or more containers",
            refused: refused::RM,
        }
    ),
    verb!(
        container::Names,
        lifecycle::rename,
        PLAIN {
            paths: &["rename", "container rename"],
            about: "Rename a container",
            usage: "CONTAINER NEW_NAME",
            arity: Arity::exactly(2),
        }
    ),
    verb!(
        container::Names,
        containers::port,
        PLAIN {
            paths: &["port", "container port"],
            about: "List port mappings or a specific mapping for the container",
            usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
            arity: Arity::between(1, 2),
        }
    ),
    verb!(
        network::Create,
        networks::create,
        PLAIN {
            paths: &["network create"],
            about: "Create a network",
            usage: "[OPTIONS] NETWORK",
            arity: Arity::exactly(1),
            refused: refused::NETWORK_CREATE,
        }
    ),
    verb!(
        network::Ls,
        networks::ls,
        PLAIN {
            paths: &["network ls", "network list"],
            about: "List networks",
            usage: "[OPTIONS]",
        }
    ),
    verb!(
        network::Inspect,
        inspect::network,
        PLAIN {
            paths: &["network inspect"],
            about: "Display detailed information on one or more networks",
            usage: "[OPTIONS] NETWORK [NETWORK...]",
            arity: Arity::at_least(1),
        }
    ),
    verb!(
        network::Rm,
        networks::rm,
        PLAIN {
            paths: &["network rm", "network remove"],
            about: "Remove one or more networks",
            usage: "NETWORK [NETWORK...]",
            arity: Arity::at_least(1),
        }
    ),
    verb!(
        network::Prune,
        networks::prune,
        PLAIN {
            paths: &["network prune"],
            about: "Remove all unused networks",
            usage: "[OPTIONS]",
        }
    ),
    verb!(
        network::Connect,
        networks::connect,
        PLAIN {
            paths: &["network connect"],
            about: "Connect a container to a network",
            usage: "[OPTIONS] NETWORK CONTAINER",
            arity: Arity::exactly(2),
            refused: refused::NETWORK_CONNECT,
        }
    ),
    verb!(
        network::Disconnect,
        networks::disconnect,
        PLAIN {
            paths: &["network disconnect"],
            about: "Disconnect a container from a network",
            usage: "[OPTIONS] NETWORK CONTAINER",
            arity: Arity::exactly(2),
        }
    ),
    verb!(
        network::Set,
        networks::set,
        PLAIN {
            paths: &["network set"],
            about: "Change a container's link on a network, also while it runs: ip=, ip6=, gw=, mac=, \
                    rate-up=, rate-down=",
            usage: "CONTAINER NETWORK KEY=VALUE [KEY=VALUE...]",
            arity: Arity::at_least(3),
        }
    ),
    verb!(
        network::HostAccess,
        networks::host_access,
        PLAIN {
            paths: &["network host-access"],
            about: "Let the host and a network's containers talk to each other, or stop it",
            usage: "[OPTIONS] NETWORK on|off",
            arity: Arity::exactly(2),
        }
    ),
    verb!(
        network::Explain,
        networks::explain,
        PLAIN {
            paths: &["network explain"],
            about: "Tell which routes a container's packets take, and why",
            usage: "[OPTIONS] CONTAINER [DESTINATION]",
            arity: Arity::between(1, 2),
        }
    ),
    verb!(
        machine::Show,
        super::machine::version,
        PLAIN {
            paths: &["version"],
            about: "Show the version information",
            usage: "[OPTIONS]",
        }
    ),
    verb!(
        machine::Show,
        super::machine::info,
        PLAIN {
            paths: &["info", "system info"],
            about: "Display system-wide information",
            usage: "[OPTIONS]",
        }
    ),
    verb!(
        machine::Events,
        super::machine::events,
        PLAIN {
            paths: &["events", "system events"],
            about: "Show what happens to containers and networks, as it happens",
            usage: "[OPTIONS]",
        }
    ),
    verb!(
        machine::Doctor,
        super::machine::doctor,
        PLAIN {
            paths: &["doctor"],
            about: "Find out what keeps containers from the LAN, and what to do; \
                    exits with 1 if there is a problem",
            usage: "[OPTIONS] [PARENT]",
            arity: Arity::between(0, 1),
        }
    ),
    verb!(
        machine::Plain,
        super::machine::gc,
        PLAIN {
            paths: &["gc", "system gc"],
            about: "Undo what dead processes left behind",
        }
    ),
    verb!(
        machine::Plain,
        super::machine::hosts,
        PLAIN {
            paths: &["hosts"],
            about: "Print addresses and names of running containers, as lines for /etc/hosts",
        }
    ),
    verb!(
        machine::Plain,
        super::machine::demo,
        PLAIN {
            paths: &["demo"],
            about: "Run the walk-through on a LAN in a box, every step checked",
        }
    ),
    verb!(
        machine::Generate,
        super::machine::completion,
        PLAIN {
            paths: &["completion"],
            about: "Generate the autocompletion script for the specified shell",
            usage: "bash|zsh|fish",
            arity: Arity::exactly(1),
        }
    ),
    verb!(
        machine::Complete,
        super::complete::names,
        PLAIN {
            paths: &["__complete"],
            about: "Names that can follow these words, for the shells' completion",
            usage: "[WORD...]",
            arity: Arity::at_least(0),
            hidden: true,
        }
    ),
    verb!(
        machine::Generate,
        super::machine::man,
        PLAIN {
            paths: &["man"],
            about: "Write a manual page to stdout, or the list of them",
            usage: "[PAGE | COMMAND... | list]",
            arity: Arity::at_least(0),
            hidden: true,
        }
    ),
];
