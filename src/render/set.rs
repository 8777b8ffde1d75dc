//! A set of templates: the built-in ones, with a directory's laid over them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::Environment;
use sha2::{Digest as _, Sha256};

use super::engine;
use crate::model::{AgentRole, FileName, break_sentinel};

/// Bytes that one template may have.
pub(super) const MAX_TEMPLATE_BYTES: u64 = 1024 * 1024;
/// Templates that a directory may hold: far more than an installation has (about ten), and a bound on memory.
const MAX_TEMPLATES: usize = 256;
/// Directories below each other that are looked into.
const MAX_DEPTH: usize = 4;
/// Endings of the files that are templates or may be included by one; everything else in a directory is ignored.
const ENDINGS: [&str; 2] = [".j2", ".md"];

const BUILTIN: [(&str, &str); 10] = [
    ("BOARD_AGENTS.md.j2", include_str!("builtin/BOARD_AGENTS.md.j2")),
    ("BOARD_BOOTSTRAP.md.j2", include_str!("builtin/BOARD_BOOTSTRAP.md.j2")),
    ("BOARD_HEARTBEAT.md.j2", include_str!("builtin/BOARD_HEARTBEAT.md.j2")),
    ("BOARD_IDENTITY.md.j2", include_str!("builtin/BOARD_IDENTITY.md.j2")),
    ("BOARD_MEMORY.md.j2", include_str!("builtin/BOARD_MEMORY.md.j2")),
    ("BOARD_SOUL.md.j2", include_str!("builtin/BOARD_SOUL.md.j2")),
    ("BOARD_TOOLS.md.j2", include_str!("builtin/BOARD_TOOLS.md.j2")),
    ("BOARD_USER.md.j2", include_str!("builtin/BOARD_USER.md.j2")),
    ("MAIN_AGENTS.md.j2", include_str!("builtin/MAIN_AGENTS.md.j2")),
    ("MAIN_HEARTBEAT.md.j2", include_str!("builtin/MAIN_HEARTBEAT.md.j2")),
];

/// Where a template comes from. A directory's `BOARD_X` goes before a built-in `MAIN_X`: whoever brings a template for a
/// file means every agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Directory,
    BuiltIn,
}

/// A set of templates, compiled when first used. Cheap to clone.
#[derive(Clone)]
pub struct TemplateSet {
    sources: Arc<BTreeMap<String, (Layer, Arc<str>)>>,
    environment: Arc<Environment<'static>>,
    digest: Arc<str>,
}

impl fmt::Debug for TemplateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemplateSet")
            .field("templates", &self.sources.keys())
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// A directory of templates cannot be used. Nothing of it is, then: half a set would rewrite agents wrongly.
#[derive(Debug, thiserror::Error)]
pub enum TemplateSetError {
    /// Something could not be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Io {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file is too large.
    #[error("{path} is larger than 1 MiB; templates must be smaller", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not UTF-8.
    #[error("{path} is not UTF-8 text; convert it or take it away", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A symbolic link leads out of the directory.
    #[error("{path} leads out of the templates directory; put the file itself there", path = path.display())]
    Escapes {
        /// The link.
        path: PathBuf,
    },
    /// There are too many files.
    #[error("{path} holds more than {MAX_TEMPLATES} templates; give a directory that holds only them", path = path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// There is none of the files that an installation has: a mistyped path, most likely.
    #[error("{path} holds no template; expected files such as BOARD_AGENTS.md.j2 or BOARD_TOOLS.md.j2", path = path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
}

impl TemplateSet {
    /// The built-in set alone.
    pub fn builtin() -> Self {
        Self::with_overlay(BTreeMap::new())
    }

    /// The built-in set with the templates of a directory laid over it, file by file.
    ///
    /// Templates are named by their path below the directory, and include each other by that name. Hidden files are
    /// ignored. Blocks: call it at start-up or where blocking is allowed.
    ///
    /// # Errors
    ///
    /// If the directory or anything in it cannot be used. A template that does not compile is no error here: it fails
    /// the files that use it, when they are rendered.
    pub fn load(dir: &Path) -> Result<Self, TemplateSetError> {
        let root = fs::canonicalize(dir).map_err(|error| io_error(dir, error))?;
        let mut overlay = BTreeMap::new();
        collect(&root, dir, "", 0, &mut overlay)?;
        let known = |name: &String| {
            FileName::ALL
                .iter()
                .any(|file| ["BOARD", "MAIN"].iter().any(|kind| *name == template_name(kind, *file)))
        };
        if !overlay.keys().any(known) {
            return Err(TemplateSetError::Empty { path: dir.to_owned() });
        }
        Ok(Self::with_overlay(overlay))
    }

    /// Hex SHA-256 over the names and contents of all templates: changes whenever rendered files may.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    fn with_overlay(overlay: BTreeMap<String, String>) -> Self {
        let builtin = BUILTIN
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned(), Layer::BuiltIn));
        let overlay = overlay.into_iter().map(|(name, text)| (name, text, Layer::Directory));
        let sources: BTreeMap<String, (Layer, Arc<str>)> = builtin
            .chain(overlay)
            .map(|(name, text, layer)| (name, (layer, Arc::from(normalize(&text)))))
            .collect();

        let mut hasher = Sha256::new();
        for (name, (layer, text)) in &sources {
            for part in [name.as_bytes(), &[u8::from(*layer == Layer::BuiltIn)], text.as_bytes()] {
                // Lengths keep a name's end apart from a text's beginning.
                hasher.update(part.len().to_be_bytes());
                hasher.update(part);
            }
        }
        let digest = hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });

        let sources = Arc::new(sources);
        let loader = Arc::clone(&sources);
        let environment = engine::environment(move |name| loader.get(name).map(|(_, text)| text.to_string()));
        Self {
            sources,
            environment: Arc::new(environment),
            digest: Arc::from(digest),
        }
    }

    /// The name of the template for a file of an agent with this role.
    pub(super) fn template_for(&self, role: AgentRole, file: FileName) -> Option<String> {
        let kinds: &[&str] = if role.is_main() { &["MAIN", "BOARD"] } else { &["BOARD"] };
        [Layer::Directory, Layer::BuiltIn]
            .into_iter()
            .flat_map(|layer| kinds.iter().map(move |kind| (layer, template_name(kind, file))))
            .find(|(layer, name)| self.sources.get(name).is_some_and(|(found, _)| found == layer))
            .map(|(_, name)| name)
    }

    pub(super) fn environment(&self) -> &Environment<'static> {
        &self.environment
    }
}

/// Prepares a template's text: line ends as Jinja normalises them, no byte order mark, no literal sentinel that would be
/// taken for the place of the token.
pub(super) fn normalize(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    break_sentinel(&text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn template_name(kind: &str, file: FileName) -> String {
    format!("{kind}_{file}.j2")
}

fn io_error(path: &Path, error: io::Error) -> TemplateSetError {
    TemplateSetError::Io {
        path: path.to_owned(),
        error,
    }
}

/// Reads the templates of a directory and those below it into `found`, by their path relative to the root.
fn collect(
    root: &Path,
    dir: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, String>,
) -> Result<(), TemplateSetError> {
    for entry in fs::read_dir(dir).map_err(|error| io_error(dir, error))? {
        let path = entry.map_err(|error| io_error(dir, error))?.path();
        // Hidden entries are editors' and version control's, and the revisions that a mounted ConfigMap links to.
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| !name.starts_with('.'))
        else {
            continue;
        };
        let name = format!("{prefix}{name}");
        let is_dir = fs::metadata(&path).map(|metadata| metadata.is_dir());
        if !matches!(is_dir, Ok(true)) && !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        let is_dir = is_dir.map_err(|error| io_error(&path, error))?;
        let real = fs::canonicalize(&path).map_err(|error| io_error(&path, error))?;
        if !real.starts_with(root) {
            return Err(TemplateSetError::Escapes { path });
        }
        if is_dir {
            if depth < MAX_DEPTH {
                collect(root, &path, &format!("{name}/"), depth + 1, found)?;
            }
            continue;
        }
        if found.len() >= MAX_TEMPLATES {
            return Err(TemplateSetError::TooMany { path: dir.to_owned() });
        }
        found.insert(name, read(&path)?);
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, TemplateSetError> {
    // Asked before opening: to open a pipe would wait for somebody to write to it.
    if !fs::metadata(path).map_err(|error| io_error(path, error))?.is_file() {
        return Err(io_error(path, io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(|error| io_error(path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_TEMPLATE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error(path, error))?;
    if bytes.len() as u64 > MAX_TEMPLATE_BYTES {
        return Err(TemplateSetError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|_| TemplateSetError::NotText { path: path.to_owned() })
}
