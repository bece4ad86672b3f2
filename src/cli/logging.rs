//! Program logs: lines on stderr, text or JSON. The access log is `telemetry`'s.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::run::LogFormat;

/// The client logs a whole answer that it cannot read as a warning, and answers hold Secrets.
const QUIET: &str = "kube_client=error";

/// Starts logging for the whole process; panics become log lines, too.
pub(super) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread, %backtrace, "a defect of Tidegate: {panic}");
    }));
    Ok(())
}

/// What the level lets through; who asks for the client's own words gets them.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    // The cause would say the same at length.
    EnvFilter::try_new(format!("{QUIET},{level}")).ok().with_context(|| {
        format!(
            "--log-level {level:?} is neither a level (error, warn, info, debug, trace) nor a \
             filter such as info,tidegate::translate=debug"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_may_not_log_answers_unless_it_is_asked_to() {
        let parts = |level: &str| {
            let mut parts: Vec<String> =
                filter(level).unwrap().to_string().split(',').map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(parts("info"), ["info", "kube_client=error"]);
        assert_eq!(parts("debug,kube_client=debug"), ["debug", "kube_client=debug"]);
        assert!(filter("info,tidegate=loud").is_err());
    }
}
