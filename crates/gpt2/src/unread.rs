//! Weights that are not read, and what to do about them: what to say of a folder that holds no
//! safetensors file of a whole model.

use std::fs;
use std::path::{Path, PathBuf};

use crate::locate::weights_in;

/// What stands in a folder instead of weights that can be read, and the command that helps; `None` if
/// nothing that is known does.
pub(crate) fn what_is_in(folder: &Path) -> Option<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .ok()?
        .take(1000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let first = |is: &dyn Fn(&str) -> bool| names.iter().find(|name| is(name));
    let shown = folder.display();
    if let Some(name) = first(&|name| name.starts_with("adapter_")) {
        return Some(format!(
            "{name} belongs to an adapter, which is only a change of another model. Merge the two:\n  \
             python -c \"from peft import AutoPeftModelForCausalLM as M; \
             M.from_pretrained('{shown}').merge_and_unload().save_pretrained('{shown}-merged')\""
        ));
    }
    if let Some(name) = first(&|name| shard_of(name).is_some()) {
        return Some(format!(
            "{name} is one of several files of a checkpoint, and their index, \
             model.safetensors.index.json, is missing: fetch it, and all files that it names"
        ));
    }
    if let Some(name) = first(&|name| name.ends_with(".safetensors")) {
        return Some(format!(
            "{name} has another name: give the file itself, --model '{}'",
            folder.join(name).display()
        ));
    }
    if let Some(name) = first(&|name| is_bin(name)) {
        return Some(format!(
            "{name} is PyTorch's own form, which may run code when it is read, and is not read here. Save \
             the model as safetensors:\n  python -c \"from transformers import AutoModelForCausalLM as M; \
             M.from_pretrained('{shown}').save_pretrained('{shown}-safetensors')\""
        ));
    }
    if let Some(name) = first(&|name| has_ending(name, &["pt", "pth", "ckpt"])) {
        let file = folder.join(name);
        let file = file.display();
        return Some(format!(
            "{name} is a checkpoint of PyTorch's, which may run code when it is read, and is not read \
             here. Save its weights as safetensors (here as nanoGPT has them), and put a config.json with \
             n_layer, n_head, n_embd, n_positions and vocab_size beside them:\n  \
             python -c \"import torch; from safetensors.torch import save_file; \
             s = torch.load('{file}', map_location='cpu')['model']; \
             save_file({{k: v.clone() for k, v in s.items()}}, '{shown}/model.safetensors')\""
        ));
    }
    if let Some(name) = first(&|name| has_ending(name, &["h5", "msgpack", "gguf", "onnx"])) {
        return Some(format!(
            "{name} is not read here: only safetensors files are. Take the model's safetensors files, or \
             convert it with transformers (save_pretrained)"
        ));
    }
    deeper(folder).map(|folder| format!("weights are in it: --model '{}'", folder.display()))
}

/// The place of a file among those of a checkpoint, by its name: `model-00001-of-00002.safetensors`.
pub(crate) fn shard_of(name: &str) -> Option<(u32, u32)> {
    let stem = name.strip_suffix(".safetensors")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (_, number) = rest.rsplit_once('-')?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

fn is_bin(name: &str) -> bool {
    has_ending(name, &["bin"]) || name.ends_with(".bin.index.json")
}

fn has_ending(name: &str, endings: &[&str]) -> bool {
    let extension = Path::new(name)
        .extension()
        .and_then(|ending| ending.to_str());
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
    let mut found = all
        .chain(below.clone())
        .filter(|path| weights_in(path).is_some());
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
            (
                &["pytorch_model.bin.index.json"],
                ["pytorch_model.bin.index.json is", "save_pretrained("],
            ),
            (
                &["adapter_config.json", "adapter_model.safetensors"],
                ["an adapter", "merge_and_unload"],
            ),
            (&["ckpt.pt"], ["ckpt.pt is", "save_file("]),
            (
                &["model-00001-of-00002.safetensors"],
                ["one of several files", "index"],
            ),
            (
                &["mine.safetensors"],
                ["mine.safetensors has another name", "--model '"],
            ),
            (&["model.gguf"], ["model.gguf is not read", "safetensors"]),
            (
                &["snapshots/abc/model.safetensors"],
                ["weights are in it", "abc"],
            ),
        ] {
            let said = said_of(files).unwrap();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
        assert_eq!(said_of(&["config.json"]), None);
    }

    #[test]
    fn a_shard_is_known_by_its_name() {
        assert_eq!(shard_of("model-00001-of-00002.safetensors"), Some((1, 2)));
        assert_eq!(shard_of("model.safetensors"), None);
        assert_eq!(shard_of("one-of-us.safetensors"), None);
    }
}
