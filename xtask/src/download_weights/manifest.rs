//! Which files make up each model, where they are, and what is known of them beforehand.

/// The models that can be downloaded.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ModelName {
    /// 124 million parameters, 548 MB
    #[value(name = "gpt2", aliases = ["gpt2-small", "openai-community/gpt2"])]
    Gpt2,
    /// 355 million parameters, 1.5 GB
    #[value(name = "gpt2-medium")]
    Medium,
    /// 774 million parameters, 3.2 GB
    #[value(name = "gpt2-large")]
    Large,
    /// 1.6 billion parameters, 6.4 GB
    #[value(name = "gpt2-xl")]
    Xl,
    /// 82 million parameters, 353 MB
    #[value(name = "distilgpt2")]
    Distil,
}

/// A model of the hub.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The name on the command line, and of the folder of the weights.
    pub name: &'static str,
    /// The repository of the hub.
    pub repository: &'static str,
    /// The commit that is pinned, if one is: otherwise the newest is taken.
    pub revision: Option<&'static str>,
    /// The files, the quick one first.
    pub files: [WeightsFile; 2],
}

/// A file of a model.
#[derive(Clone, Copy, Debug)]
pub struct WeightsFile {
    /// Its name, in the repository and on the disk.
    pub name: &'static str,
    /// What it must be, if that is known beforehand.
    pub pin: Option<Pin>,
}

/// Exactly which bytes a file has.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// The length in bytes.
    pub size: u64,
    /// The SHA-256 checksum.
    pub sha256: &'static str,
}

/// The file with the hyperparameters.
pub const CONFIG: &str = "config.json";

/// The file with the parameters.
pub const WEIGHTS: &str = "model.safetensors";

const GPT2: Model = Model {
    name: "gpt2",
    repository: "openai-community/gpt2",
    revision: Some("607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    files: [
        WeightsFile {
            name: CONFIG,
            pin: Some(Pin {
                size: 665,
                sha256: "0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4",
            }),
        },
        WeightsFile {
            name: WEIGHTS,
            pin: Some(Pin {
                size: 548_105_171,
                sha256: "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
            }),
        },
    ],
};

/// A model of which nothing is known beforehand: the hub's own checksums are used.
const fn unpinned(name: &'static str, repository: &'static str) -> Model {
    Model {
        name,
        repository,
        revision: None,
        files: [WeightsFile { name: CONFIG, pin: None }, WeightsFile { name: WEIGHTS, pin: None }],
    }
}

impl ModelName {
    /// What is known of the model.
    pub fn model(self) -> Model {
        match self {
            Self::Gpt2 => GPT2,
            Self::Medium => unpinned("gpt2-medium", "openai-community/gpt2-medium"),
            Self::Large => unpinned("gpt2-large", "openai-community/gpt2-large"),
            Self::Xl => unpinned("gpt2-xl", "openai-community/gpt2-xl"),
            Self::Distil => unpinned("distilgpt2", "distilbert/distilgpt2"),
        }
    }
}
