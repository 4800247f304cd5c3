//! Where weights are: the known models by name, and the folders that are searched for them.
//!
//! A model called `gpt2` is looked for in the folder `gpt2` of
//!
//! 1. `weights/` of the workspace that this program was built in,
//! 2. `weights/` of the current folder,
//! 3. the folder that `PATCH_WEIGHTS` names,
//!
//! and then in the cache of the Python hub client, which is only read: the folder
//! `models--openai-community--gpt2` of `HF_HUB_CACHE`, else of `HF_HOME/hub`, else of
//! `XDG_CACHE_HOME/huggingface/hub`, else of `~/.cache/huggingface/hub`. The newer of the hub's two
//! names for a model comes first.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::files;

/// A model that is known by name, and its sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Its name here.
    pub name: &'static str,
    /// Its names on the Hugging Face hub, the newest first; none for the model that ships with the
    /// project.
    pub repositories: &'static [&'static str],
    /// How many blocks it has.
    pub n_layer: usize,
    /// How many attention heads a block has.
    pub n_head: usize,
    /// The width of its residual stream.
    pub n_embd: usize,
    /// The most tokens a prompt may have.
    pub block_size: usize,
    /// About how large its weights are as they are published, in millions of bytes.
    pub megabytes: u64,
}

/// The name of the model that ships with the project.
pub const TINY: &str = "tiny";

/// The model that is used when none is named and its weights are there.
pub const DEFAULT: &str = "gpt2";

/// The models with a name. All but the first can be downloaded.
pub const KNOWN: [Known; 6] = [
    known(TINY, &[], (12, 4, 64), 8),
    known("gpt2", &["openai-community/gpt2", "gpt2"], (12, 12, 768), 548),
    known("gpt2-medium", &["openai-community/gpt2-medium", "gpt2-medium"], (24, 16, 1024), 1520),
    known("gpt2-large", &["openai-community/gpt2-large", "gpt2-large"], (36, 20, 1280), 3247),
    known("gpt2-xl", &["openai-community/gpt2-xl", "gpt2-xl"], (48, 25, 1600), 6432),
    known("distilgpt2", &["distilbert/distilgpt2", "distilgpt2"], (6, 12, 768), 353),
];

const fn known(
    name: &'static str,
    repositories: &'static [&'static str],
    (n_layer, n_head, n_embd): (usize, usize, usize),
    megabytes: u64,
) -> Known {
    Known {
        name,
        repositories,
        n_layer,
        n_head,
        n_embd,
        block_size: if repositories.is_empty() { 128 } else { 1024 },
        megabytes,
    }
}

/// Other names that people know models by: TransformerLens's.
const ALIASES: [(&str, &str); 5] = [
    ("gpt2-small", "gpt2"),
    ("distil-gpt2", "distilgpt2"),
    ("distillgpt2", "distilgpt2"),
    ("distill-gpt2", "distilgpt2"),
    ("gpt2-xs", "distilgpt2"),
];

impl Known {
    /// The known model of this name, or of a name that means it (`gpt2-small`).
    pub fn named(name: &str) -> Option<&'static Self> {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        let name = alias.map_or(name, |(_, name)| name);
        KNOWN.iter().find(|known| known.name == name)
    }

    /// Whether `cargo xtask download-weights` fetches it.
    pub fn can_be_downloaded(&self) -> bool {
        !self.repositories.is_empty()
    }
}

/// The folders that are searched.
#[derive(Clone, Debug, PartialEq)]
pub struct Places {
    /// Folders with a folder of weights by name, in the order in which they are searched.
    folders: Vec<PathBuf>,
    /// The cache of the Python hub client, where there may be one.
    hub_cache: Option<PathBuf>,
}

impl Places {
    /// The folders that the environment variables of this process name.
    pub fn from_env() -> Self {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights").canonicalize().ok();
        let current = env::current_dir().ok().map(|folder| folder.join("weights"));
        let variable = env::var_os("PATCH_WEIGHTS").map(PathBuf::from);
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in [workspace, current, variable].into_iter().flatten() {
            if !folder.as_os_str().is_empty() && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        Self { folders, hub_cache: hub_cache(&|name| env::var_os(name), env::home_dir()) }
    }

    /// Every folder that would be tried for a model of this name.
    pub fn candidates(&self, name: &str) -> Vec<PathBuf> {
        [self.by_name(name), self.in_hub_cache(name)].concat()
    }

    /// The folders with weights of a model, the one that is used first. A model is looked for by its
    /// name, or by its name on the hub (`openai-community/gpt2`), which finds it in the cache only.
    pub fn find_all(&self, name: &str) -> Vec<PathBuf> {
        let mut found = self.by_name(name);
        found.retain(|folder| weights_in(folder).is_some());
        found.extend(self.in_hub_cache(name).iter().filter_map(|folder| snapshot(folder)));
        found
    }

    fn by_name(&self, name: &str) -> Vec<PathBuf> {
        let folders = self.folders.iter();
        let folders = folders.filter(|_| files::is_plain_name(name));
        folders.map(|folder| folder.join(name)).collect()
    }

    /// The hub cache's folder of every repository that the name may mean.
    fn in_hub_cache(&self, name: &str) -> Vec<PathBuf> {
        let Some(cache) = &self.hub_cache else {
            return Vec::new();
        };
        let folder = |repository: &str| cache.join(format!("models--{}", repository.replace('/', "--")));
        repositories(name).into_iter().map(folder).collect()
    }

    /// The folder with the weights of a model, if they are there.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.find_all(name).into_iter().next()
    }

    /// The folders that are there for a model of this name and hold no weights that can be read.
    pub(crate) fn without_weights(&self, name: &str) -> Vec<PathBuf> {
        let snapshots = |repository: PathBuf| {
            let entries = fs::read_dir(repository.join("snapshots"));
            entries.into_iter().flatten().filter_map(Result::ok)
        };
        let in_cache = self.in_hub_cache(name).into_iter().flat_map(snapshots);
        let mut folders = self.by_name(name);
        folders.extend(in_cache.map(|entry| entry.path()));
        folders.retain(|folder| folder.is_dir() && weights_in(folder).is_none());
        folders
    }

    /// The names of the models in the searched folders that are not known ones, sorted.
    pub fn other_names(&self) -> Vec<String> {
        let entries = self.folders.iter().filter_map(|folder| fs::read_dir(folder).ok());
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| weights_in(&entry.path()).is_some())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| Known::named(name).is_none())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The weights in a folder: one file, or the index of several.
pub fn weights_in(folder: &Path) -> Option<PathBuf> {
    ["model.safetensors", "model.safetensors.index.json"]
        .into_iter()
        .map(|file| folder.join(file))
        .find(|path| path.is_file())
}

/// Where the Python hub client keeps what it fetched.
fn hub_cache(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("HF_HUB_CACHE")
        .or_else(|| Some(folder("HF_HOME")?.join("hub")))
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(home?.join(".cache/huggingface/hub")))
}

/// The repositories of the hub that a name may mean.
fn repositories(name: &str) -> Vec<&str> {
    match (Known::named(name), name.split_once('/')) {
        (Some(known), _) => known.repositories.to_vec(),
        (None, Some((owner, model))) if files::is_plain_name(owner) && files::is_plain_name(model) => {
            vec![name]
        }
        _ => Vec::new(),
    }
}

/// The folder of weights in a repository of the hub cache: `snapshots/REVISION`. The revision is
/// that of `refs/main`; where there is none, and exactly one snapshot has weights, it is that.
fn snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let main = files::read_text(&repository.join("refs/main")).ok();
    if let Some(revision) = main.as_deref().map(str::trim)
        && files::is_plain_name(revision)
    {
        let folder = snapshots.join(revision);
        return weights_in(&folder).map(|_| folder);
    }
    let entries = fs::read_dir(snapshots).ok()?.filter_map(Result::ok);
    let mut with_weights = entries.map(|entry| entry.path()).filter(|folder| weights_in(folder).is_some());
    let folder = with_weights.next()?;
    with_weights.next().is_none().then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, file: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(file), "").unwrap();
    }

    /// Two folders `a` and `b` and a cache `hub` in an empty folder.
    fn places() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let places = Places {
            folders: ["a", "b"].map(|name| root.path().join(name)).to_vec(),
            hub_cache: Some(root.path().join("hub")),
        };
        (root, places)
    }

    #[test]
    fn folders_are_searched_in_order_and_the_hub_cache_last() {
        let (root, places) = places();
        let found = |name| {
            let strip = |path: PathBuf| {
                let path = path.strip_prefix(root.path()).unwrap();
                path.to_str().unwrap().replace('\\', "/")
            };
            let found: Vec<String> = places.find_all(name).into_iter().map(strip).collect();
            found
        };
        assert_eq!(found("gpt2"), [""; 0]);

        let old = root.path().join("hub/models--gpt2");
        put(&old.join("snapshots/only"), "model.safetensors");
        assert_eq!(found("gpt2"), ["hub/models--gpt2/snapshots/only"]);

        let new = root.path().join("hub/models--openai-community--gpt2");
        put(&new.join("snapshots/r1"), "model.safetensors");
        put(&new.join("snapshots/r2"), "model.safetensors.index.json");
        assert_eq!(found("gpt2").len(), 1, "without refs/main, two are ambiguous");
        put(&new.join("refs"), "main");
        fs::write(new.join("refs/main"), "r2\n").unwrap();
        put(&root.path().join("b/gpt2"), "model.safetensors");
        assert_eq!(
            found("gpt2"),
            ["b/gpt2", "hub/models--openai-community--gpt2/snapshots/r2", "hub/models--gpt2/snapshots/only"]
        );
        assert_eq!(found("openai-community/gpt2"), ["hub/models--openai-community--gpt2/snapshots/r2"]);

        put(&root.path().join("a/gpt2"), "model.safetensors.index.json");
        put(&root.path().join("a/mine"), "model.safetensors");
        put(&root.path().join("a/empty"), "config.json");
        assert_eq!(found("gpt2")[..2], ["a/gpt2", "b/gpt2"]);
        assert_eq!(places.other_names(), ["mine"]);
    }

    #[test]
    fn neither_a_name_nor_refs_main_can_lead_out_of_the_folders() {
        let (root, places) = places();
        put(&root.path().join("outside"), "model.safetensors");
        put(&root.path().join("hub/x"), "model.safetensors");
        for name in ["../outside", "..", "", "hub/../outside", "../../outside"] {
            assert_eq!(places.find(name), None, "{name}");
            assert!(places.candidates(name).is_empty(), "{name}");
        }
        let repository = root.path().join("hub/models--gpt2");
        put(&repository.join("refs"), "main");
        put(&repository.join("snapshots"), "none");
        fs::write(repository.join("refs/main"), "../../../outside").unwrap();
        assert_eq!(places.find("gpt2"), None);
    }

    #[test]
    fn the_hub_cache_is_where_the_python_client_has_it() {
        let cache = |set: &[(&str, &str)]| {
            let variable = |name: &str| {
                let value = set.iter().find(|(key, _)| *key == name);
                value.map(|(_, value)| OsString::from(value))
            };
            hub_cache(&variable, Some(PathBuf::from("/home")))
        };
        let all = [("HF_HUB_CACHE", "/cache"), ("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/xdg")];
        for (set, expected) in [
            (&all[..], "/cache"),
            (&all[1..], "/hf/hub"),
            (&all[2..], "/xdg/huggingface/hub"),
            (&[("HF_HOME", "")], "/home/.cache/huggingface/hub"),
        ] {
            assert_eq!(cache(set), Some(PathBuf::from(expected)));
        }
    }
}
