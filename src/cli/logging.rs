//! Program logs: lines on stderr, text or JSON. The access log is `telemetry`'s.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::run::LogFormat;

/// Starts logging for the whole process; panics become log lines, too.
pub(super) fn start(format: LogFormat, level: &str) -> anyhow::Result<()> {
    // The cause would say the same at length.
    let filter = EnvFilter::try_new(level).ok().with_context(|| {
        format!(
            "--log-level {level:?} is neither a level (error, warn, info, debug, trace) nor a \
             filter such as info,tidegate::translate=debug"
        )
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
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
