//! One file per sub-command; wiring only.
//!
//! What the flags mean is written here, for `--help`; what they do is done elsewhere. Every
//! flag of `run` and `drain` is an environment variable, too: `TIDEGATE_` and its name.

pub mod crds;
pub mod demo;
pub mod drain;
mod logging;
mod orphans;
mod parse;
pub mod run;
mod serve;
mod settings;
pub mod validate;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A Kubernetes ingress and Gateway API controller with its proxy inside.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: from the cluster of the kubeconfig or of the pod, from files, or the demo.
    Run(Box<run::Args>),
    /// Make the process at the admin address leave, and wait until it stops taking new work.
    Drain(drain::Args),
    /// Check files and folders of Kubernetes YAML: one line a problem, exit code 1 if there is any.
    Validate(validate::Args),
    /// Print the CustomResourceDefinitions of Tidegate's own kinds.
    Crds(crds::Args),
}

impl Cli {
    /// The flags and the environment of this process. Ends it where they are wrong, and for help.
    pub fn of_process() -> Self {
        let matches = command().get_matches();
        // What matched the definition can be taken from it.
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Does what was asked. An error is for people: it is printed, and the exit code is 1.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::run(&args),
            Command::Drain(args) => drain::run(&args),
            Command::Validate(args) => validate::run(&args, &mut std::io::stdout().lock()),
            Command::Crds(args) => crds::run(&args, &mut std::io::stdout().lock()),
        }
    }
}

/// The definition, where a variable that is empty is as good as none: that is how manifests and
/// shells unset one.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        command.mut_args(|arg| {
            let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|v| v.is_empty());
            if empty { arg.env(None::<&'static str>) } else { arg }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_documented_and_an_environment_variable() {
        let cli = Cli::command();
        for name in ["run", "drain"] {
            let command = cli.find_subcommand(name).expect("a sub-command");
            for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
                let long = arg.get_long().expect("a long name");
                let variable = format!("TIDEGATE_{}", long.replace('-', "_").to_uppercase());
                let env = arg.get_env().and_then(|env| env.to_str());
                assert_eq!(env, Some(variable.as_str()), "{name} --{long}");
                assert!(arg.get_help().is_some(), "{name} --{long} says nothing");
            }
        }
    }
}
