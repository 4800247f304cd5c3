//! Messages for folders without a safetensors file of a whole model: what is there instead, and what to do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::locate::weights_in;
use visible::{visible_line, visible_path};

/// Files that are not the weights of a whole model in a form that is read.
#[derive(Clone, Copy)]
enum Kind {
    Adapter,
    Shard,
    OtherName,
    Bin,
    Checkpoint,
    OtherForm,
}

impl Kind {
    /// In the order in which a folder is searched for them.
    const ALL: [Self; 6] =
        [Self::Adapter, Self::Shard, Self::OtherName, Self::Bin, Self::Checkpoint, Self::OtherForm];

    /// Whether a file of this name is of this kind.
    fn is(self, name: &str) -> bool {
        match self {
            Self::Adapter => name.starts_with("adapter_"),
            Self::Shard => shard_of(name).is_some(),
            Self::OtherName => name.ends_with(".safetensors"),
            Self::Bin => has_ending(name, &["bin"]) || name.ends_with(".bin.index.json"),
            Self::Checkpoint => has_ending(name, &["pt", "pth", "ckpt"]),
            Self::OtherForm => has_ending(name, &["h5", "msgpack", "gguf", "onnx"]),
        }
    }

    /// Why a file in this folder is not read, and the command that helps.
    fn explain(self, folder: &Path, name: &str) -> String {
        let shown = visible_path(folder);
        let file = folder.join(name);
        let file = visible_path(&file);
        let name = visible_line(name);
        match self {
            Self::Adapter => format!(
                "{name} belongs to an adapter, which is only a change of another model. Merge the two:\n  \
                 python -c \"from peft import AutoPeftModelForCausalLM as M; \
                 M.from_pretrained('{shown}').merge_and_unload().save_pretrained('{shown}/merged')\""
            ),
            Self::Shard => format!(
                "{name} is one of several files of a checkpoint, and their index, \
                 model.safetensors.index.json, is missing: fetch it, and all files that it names"
            ),
            Self::OtherName => {
                format!("{name} has another name: give the file itself, --model '{file}'")
            }
            Self::Bin => format!(
                "{name} is PyTorch's own form, which may run code when it is read, and is not read here. \
                 Save the model as safetensors:\n  \
                 python -c \"from transformers import AutoModelForCausalLM as M; \
                 M.from_pretrained('{shown}').save_pretrained('{shown}/safetensors')\""
            ),
            Self::Checkpoint => format!(
                "{name} is a checkpoint of PyTorch's, which may run code when it is read, and is not read \
                 here. Save its weights as safetensors (here as nanoGPT has them), and put a config.json with \
                 n_layer, n_head, n_embd, n_positions and vocab_size beside them:\n  \
                 python -c \"import torch; from safetensors.torch import save_file; \
                 s = torch.load('{file}', map_location='cpu')['model']; \
                 save_file({{k: v.clone() for k, v in s.items()}}, '{shown}/model.safetensors')\""
            ),
            Self::OtherForm => format!(
                "{name} is not read here: only safetensors files are. Take the model's safetensors files, or \
                 convert it with transformers (save_pretrained)"
            ),
        }
    }
}

/// What is in a folder instead of weights that can be read, and the command that helps; `None` if nothing
/// there is known.
pub(crate) fn what_is_in(folder: &Path) -> Option<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .ok()?
        .take(1000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let first = |kind: Kind| Some((kind, names.iter().find(|name| kind.is(name))?));
    if let Some((kind, name)) = Kind::ALL.into_iter().find_map(first) {
        return Some(kind.explain(folder, name));
    }
    deeper(folder).map(|folder| format!("weights are in it: --model '{}'", visible_path(&folder)))
}

/// The kind of a file that is not read as weights, by its name, and the command that helps; `None` for a
/// safetensors file and for unknown ones.
pub(crate) fn what_is(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let kinds = [Kind::Bin, Kind::Checkpoint, Kind::OtherForm];
    let kind = kinds.into_iter().find(|kind| kind.is(name))?;
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    Some(kind.explain(folder.unwrap_or(Path::new(".")), name))
}

/// The place of a file among those of a checkpoint, by its name: `model-00001-of-00002.safetensors`.
pub(crate) fn shard_of(name: &str) -> Option<(u32, u32)> {
    let stem = name.strip_suffix(".safetensors")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (_, number) = rest.rsplit_once('-')?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

fn has_ending(name: &str, endings: &[&str]) -> bool {
    let extension = Path::new(name).extension().and_then(|ending| ending.to_str());
    extension.is_some_and(|ending| endings.contains(&ending))
}

/// The only folder at most two levels down that has weights, such as a snapshot of the hub's cache.
fn deeper(folder: &Path) -> Option<PathBuf> {
    let folders = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().take(100);
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter(|path| path.is_dir()).collect()
    };
    let below = folders(folder);
    let all = below.iter().flat_map(|path| folders(path));
    let mut found = all.chain(below.clone()).filter(|path| weights_in(path).is_some());
    let only = found.next()?;
    found.next().is_none().then_some(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(files: &[&str]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        what_is_in(folder.path())
    }

    #[test]
    fn each_kind_of_file_is_named_with_what_to_do() {
        for (files, parts) in [
            (
                &["config.json", "pytorch_model.bin"][..],
                ["pytorch_model.bin is PyTorch's", "save_pretrained("],
            ),
            (&["pytorch_model.bin.index.json"], ["pytorch_model.bin.index.json is", "save_pretrained("]),
            (&["adapter_config.json", "adapter_model.safetensors"], ["an adapter", "merge_and_unload"]),
            (&["ckpt.pt"], ["ckpt.pt is", "save_file("]),
            (&["model-00001-of-00002.safetensors"], ["one of several files", "index"]),
            (&["mine.safetensors"], ["mine.safetensors has another name", "--model '"]),
            (&["model.gguf"], ["model.gguf is not read", "safetensors"]),
            (&["snapshots/abc/model.safetensors"], ["weights are in it", "abc"]),
        ] {
            let said = said_of(files).unwrap();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
        assert_eq!(said_of(&["config.json"]), None);
    }

    #[test]
    fn a_file_of_another_form_is_explained_by_its_name() {
        let said = |file: &str| what_is(Path::new(file));
        let bin = said("a/pytorch_model.bin").unwrap();
        assert!(bin.contains("M.from_pretrained('a').save_pretrained('a/safetensors')"));
        assert!(said("ckpt.pt").unwrap().contains("torch.load('./ckpt.pt'"));
        assert!(said("x.gguf").unwrap().contains("only safetensors files"));
        assert_eq!(said("model.safetensors"), None);
        assert_eq!(said("weights"), None);
    }

    #[test]
    fn a_shard_is_known_by_its_name() {
        assert_eq!(shard_of("model-00001-of-00002.safetensors"), Some((1, 2)));
        assert_eq!(shard_of("model.safetensors"), None);
        assert_eq!(shard_of("one-of-us.safetensors"), None);
    }
}
