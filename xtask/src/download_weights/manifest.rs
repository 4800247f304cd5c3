//! The models that can be downloaded, and what their files must be.

/// The hyperparameters.
pub const CONFIG: &str = "config.json";

/// The parameters.
pub const WEIGHTS: &str = "model.safetensors";

/// A model on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
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

impl Model {
    /// Its repository on the hub.
    pub fn repository(self) -> &'static str {
        match self {
            Self::Gpt2 => "openai-community/gpt2",
            Self::Medium => "openai-community/gpt2-medium",
            Self::Large => "openai-community/gpt2-large",
            Self::Xl => "openai-community/gpt2-xl",
            Self::Distil => "distilbert/distilgpt2",
        }
    }

    /// Its name on the command line, which is also that of its folder.
    pub fn name(self) -> &'static str {
        self.repository().rsplit('/').next().unwrap_or_default()
    }

    /// The commit to fetch; without one, the newest is fetched.
    pub fn revision(self) -> Option<&'static str> {
        (self == Self::Gpt2).then_some("607a30d783dfa663caf39e06633721c8d4cfcd7e")
    }

    /// The length and the SHA-256 checksum of a file at that commit.
    pub fn pin(self, file: &str) -> Option<(u64, &'static str)> {
        match (self, file) {
            (Self::Gpt2, CONFIG) => {
                Some((665, "0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4"))
            }
            (Self::Gpt2, WEIGHTS) => {
                Some((548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"))
            }
            _ => None,
        }
    }
}
