//! `tidegate crds`: the CustomResourceDefinitions of our own kinds, as YAML.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::api::crd::{self, Crd};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a file for each kind into this folder instead of printing; may be repeated.
    #[arg(long, value_name = "FOLDER")]
    write: Vec<PathBuf>,
}

/// Does what was asked; the YAML goes to `out`.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let files = crd::all().iter().map(file).collect::<anyhow::Result<Vec<_>>>()?;
    if args.write.is_empty() {
        for (_, text) in &files {
            write!(out, "---\n{text}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    for folder in &args.write {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
        for (name, text) in &files {
            let path = folder.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("{}: cannot be written", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The name and the text of the file that holds a CRD.
fn file(crd: &Crd) -> anyhow::Result<(String, String)> {
    let yaml = serde_saphyr::to_string(&crd.definition).context("a CRD cannot be printed")?;
    let text = format!("# Made by `tidegate crds`; change the types in src/api instead.\n{yaml}");
    Ok((format!("{}.yaml", crd.name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_was_generated() {
        let mut out = Vec::new();
        run(&Args { write: Vec::new() }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let printed: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        let generated: Vec<_> = crd::all().into_iter().map(|crd| crd.definition).collect();
        assert_eq!(printed, generated);
    }

    /// `cargo run -- crds --write crds --write charts/tidegate/files/crds` makes it pass.
    #[test]
    fn the_files_in_the_repository_are_current() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        for folder in ["crds", "charts/tidegate/files/crds"] {
            for (name, text) in crd::all().iter().map(|crd| file(crd).unwrap()) {
                let found = std::fs::read_to_string(root.join(folder).join(&name));
                assert_eq!(found.ok().as_deref(), Some(text.as_str()), "{folder}/{name}");
            }
        }
    }
}
