//! The trainer: the loss of a batch, its gradient, and what an optimizer makes of it.

use gpt2::{Config, Gpt2, Gradients, Kernel, Rules, no_hook};
use rayon::prelude::*;
use tensor::{Tensor, log_sum_exp, softmax};

/// A sequence to be learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// How much each prediction counts, that of `ids[1]` first: one number fewer than there are tokens.
    pub weights: Vec<f32>,
}

impl From<Vec<u32>> for Example {
    /// A sequence in which all predictions count alike.
    fn from(ids: Vec<u32>) -> Self {
        Self { weights: vec![1.0; ids.len().saturating_sub(1)], ids }
    }
}

impl Example {
    /// What all of its predictions count.
    fn weight(&self) -> f64 {
        self.weights.iter().copied().map(f64::from).sum()
    }
}

/// How a model is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainerConfig {
    /// The optimizer.
    pub optimizer: AdamW,
    /// A gradient longer than this is made this long; none for no bound. (minGPT's `grad_norm_clip`.)
    pub grad_norm_clip: Option<f32>,
    /// For so many steps the learning rate rises from 0 to the optimizer's.
    pub warmup_steps: usize,
    /// At this step it has fallen along half a cosine to `final_learning_rate`, and stays there. 0 for a learning
    /// rate that does not fall.
    pub max_steps: usize,
    /// Where the learning rate ends.
    pub final_learning_rate: f32,
}

impl Default for TrainerConfig {
    /// minGPT's: gradients of at most length 1, a constant learning rate.
    fn default() -> Self {
        Self {
            optimizer: AdamW::default(),
            grad_norm_clip: Some(1.0),
            warmup_steps: 0,
            max_steps: 0,
            final_learning_rate: 0.0,
        }
    }
}

impl TrainerConfig {
    /// The learning rate of a step, counted from 0.
    pub fn learning_rate(&self, step: usize) -> f32 {
        let (highest, lowest) = (self.optimizer.learning_rate, self.final_learning_rate);
        if step < self.warmup_steps {
            return highest * (step + 1) as f32 / self.warmup_steps as f32;
        }
        match self.max_steps {
            0 => highest,
            max if step >= max => lowest,
            max => {
                let share = (step - self.warmup_steps) as f32 / (max - self.warmup_steps) as f32;
                lowest + 0.5 * (1.0 + (std::f32::consts::PI * share).cos()) * (highest - lowest)
            }
        }
    }
}

/// Which parameters decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decay {
    /// The weights of the blocks' linear layers: neither embeddings, biases nor layer norms (minGPT).
    #[default]
    Matrices,
    /// All, as in `torch.optim.AdamW` by itself.
    All,
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101). At step t, counted from 1:
///
/// ```text
/// p ← p − lr λ p
/// m ← β₁ m + (1 − β₁) g        m̂ = m / (1 − β₁ᵗ)
/// v ← β₂ v + (1 − β₂) g²       v̂ = v / (1 − β₂ᵗ)
/// p ← p − lr m̂ / (√v̂ + ε)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// lr
    pub learning_rate: f32,
    /// β₁ and β₂
    pub betas: [f32; 2],
    /// ε
    pub epsilon: f32,
    /// λ
    pub weight_decay: f32,
    /// Which parameters decay.
    pub decay: Decay,
}

impl Default for AdamW {
    /// minGPT's: lr 3e-4, betas 0.9 and 0.95, ε 1e-8, weight decay 0.1 of matrices.
    fn default() -> Self {
        Self {
            learning_rate: 3e-4,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.1,
            decay: Decay::default(),
        }
    }
}

impl AdamW {
    fn decays(&self, name: &str, p: &Tensor) -> bool {
        match self.decay {
            _ if name == CONSTANT => false,
            Decay::All => true,
            Decay::Matrices => name.starts_with("h.") && p.shape().len() == 2,
        }
    }
}

/// The bias of the logits is not trained: a GPT-2 has none as it is saved, and where there is one it was put there
/// ([`crate::Vocabulary`]).
const CONSTANT: &str = "lm_head.bias";

/// What one step has done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its number, from 0.
    pub step: usize,
    /// The loss of the batch before the step, in nats a token.
    pub loss: f32,
    /// The length of the gradient, before it was clipped.
    pub gradient_norm: f32,
    /// The learning rate.
    pub learning_rate: f32,
}

/// A model in training.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// The model.
    pub model: Gpt2,
    pub(crate) config: TrainerConfig,
    /// How many steps have been done.
    pub(crate) step: usize,
    /// m and v of every parameter.
    pub(crate) moments: [Gpt2; 2],
}

impl Trainer {
    /// A trainer before its first step.
    pub fn new(model: Gpt2, config: TrainerConfig) -> Self {
        let moments = [model.zeros_like(), model.zeros_like()];
        Self { model, config, step: 0, moments }
    }

    /// How many steps have been done.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// One step on a batch of sequences. The same batches give the same bits on any number of threads.
    ///
    /// # Panics
    /// As [`loss_and_gradient`].
    pub fn step(&mut self, batch: &[Example]) -> Step {
        let (loss, mut gradient) = loss_and_gradient(&self.model, batch);
        if let Some(constant) = &mut gradient.lm_head_bias {
            constant.data_mut().fill(0.0);
        }
        let gradient_norm = norm(&gradient);
        if let Some(most) = self.config.grad_norm_clip {
            // As torch.nn.utils.clip_grad_norm_ has it.
            let factor = most / (gradient_norm + 1e-6);
            if factor < 1.0 {
                gradient.parameters_mut().into_iter().for_each(|(_, g)| g.scale(factor));
            }
        }
        let learning_rate = self.config.learning_rate(self.step);
        self.update(&gradient, learning_rate);
        self.step += 1;
        Step { step: self.step - 1, loss, gradient_norm, learning_rate }
    }

    /// A step of AdamW.
    fn update(&mut self, gradient: &Gpt2, learning_rate: f32) {
        let adam = self.config.optimizer;
        // 1 − βᵗ, in f64 because β₂ᵗ is near to 1.
        let t = (self.step + 1) as f64;
        let corrections = adam.betas.map(|beta| (1.0 - f64::from(beta).powf(t)) as f32);
        let [m, v] = &mut self.moments;
        let moments = m.parameters_mut().into_iter().zip(v.parameters_mut());
        let all = self.model.parameters_mut().into_iter().zip(gradient.parameters()).zip(moments);
        for (((name, p), (_, g)), ((_, m), (_, v))) in all {
            let kept = match adam.decays(&name, p) {
                true => 1.0 - learning_rate * adam.weight_decay,
                false => 1.0,
            };
            let [beta_1, beta_2] = adam.betas;
            let numbers = p.data_mut().iter_mut().zip(g.data());
            for ((p, g), (m, v)) in numbers.zip(m.data_mut().iter_mut().zip(v.data_mut())) {
                *m = beta_1 * *m + (1.0 - beta_1) * g;
                *v = beta_2 * *v + (1.0 - beta_2) * g * g;
                let [m, v] = [*m / corrections[0], *v / corrections[1]];
                *p = *p * kept - learning_rate * m / (v.sqrt() + adam.epsilon);
            }
        }
    }
}

/// The length of all gradients together.
fn norm(gradient: &Gpt2) -> f32 {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let of_parameter = |(_, g): (String, &Tensor)| g.data().iter().map(square).sum::<f64>();
    gradient.parameters().into_iter().map(of_parameter).sum::<f64>().sqrt() as f32
}

/// A batch is cut into this many parts, whose gradients are added up in order: so no bit depends on the number
/// of threads.
const PARTS: usize = 8;

/// The mean loss −ln p(next token) of all predictions of all sequences, each by its weight, in nats, and its gradient
/// with respect to every parameter.
///
/// # Panics
/// If the model cannot read a sequence, a sequence does not have one weight fewer than tokens, or no prediction
/// counts.
pub fn loss_and_gradient(model: &Gpt2, batch: &[Example]) -> (f32, Gpt2) {
    let weight: f64 = batch.iter().map(Example::weight).sum();
    assert!(
        weight > 0.0,
        "a batch of {} sequences without a next token that counts has no loss",
        batch.len()
    );
    let of_part = |batch: &[Example]| {
        let mut gradient = model.zeros_like();
        let mut loss = 0.0;
        for example in batch.iter().filter(|example| example.weight() > 0.0) {
            loss += add_sequence(model, example, weight, &mut gradient);
        }
        (loss, gradient)
    };
    let parts = batch.par_chunks(batch.len().div_ceil(PARTS)).with_max_len(1).map(of_part);
    let parts: Vec<(f64, Gpt2)> = parts.collect();
    let loss: f64 = parts.iter().map(|(loss, _)| loss).sum();
    let mut parts = parts.into_iter().map(|(_, gradient)| gradient);
    let mut total = parts.next().unwrap_or_else(|| model.zeros_like());
    for part in parts {
        let all = total.parameters_mut().into_iter().zip(part.parameters());
        all.for_each(|((_, total), (_, part))| total.add_assign(part));
    }
    ((loss / weight) as f32, total)
}

/// Adds the gradient of a sequence's weighted losses, divided by the weight of the whole batch, and gives their sum.
fn add_sequence(model: &Gpt2, example: &Example, total: f64, gradient: &mut Gpt2) -> f64 {
    let Example { ids, weights } = example;
    let (t, next) = (ids.len() - 1, &ids[1..]);
    assert!(weights.len() == t, "{} weights for the {t} predictions of a sequence", weights.len());
    let activations = model.record(Kernel::Fast, &ids[..t], &mut no_hook);
    let mut logits = model.unembed_rows(&activations.end); // (T, V)
    let loss_at = |pos: usize| {
        let row = logits.row(pos);
        f64::from(weights[pos]) * (log_sum_exp(row) - f64::from(row[next[pos] as usize]))
    };
    let loss = (0..t).map(loss_at).sum();

    // dlogits = (p − [is next]) weight / total
    softmax(&mut logits);
    let mut dlogits = logits;
    for (pos, weight) in weights.iter().enumerate() {
        let (row, share) = (dlogits.row_mut(pos), (f64::from(*weight) / total) as f32);
        row[next[pos] as usize] -= 1.0;
        row.iter_mut().for_each(|x| *x *= share);
    }
    model.unembed_backward_parameters(&dlogits, &activations.end, gradient);
    let to = Gradients { hook: None, parameters: Some(gradient) };
    model.backward(&activations, model.unembed_backward(&dlogits), &Rules::default(), to);
    loss
}

/// A model to be trained from the beginning, as minGPT makes it (and OpenAI's): weights are normally distributed
/// with the standard deviation 0.02, those that write to the residual stream with 0.02 / √(2 · n_layer); biases are
/// 0, and layer norms change nothing. Equal seeds give equal models.
pub fn initial_model(config: Config, seed: u64) -> Gpt2 {
    // Uniform numbers, two of which make two normal ones (Box & Muller 1958).
    let mut state = seed;
    let mut uniform = move || {
        // SplitMix64 (Steele et al. 2014)
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut normal = move || {
        let (radius, angle) = ((-2.0 * (1.0 - uniform()).ln()).sqrt(), std::f64::consts::TAU * uniform());
        (radius * angle.cos()) as f32
    };
    let mut model = Gpt2::random(config, seed);
    let to_stream = 0.02 / (2.0 * config.n_layer as f32).sqrt();
    for (name, x) in model.parameters_mut() {
        let deviation = if name.ends_with("c_proj.weight") { to_stream } else { 0.02 };
        let is_norm = name.contains("ln_") && name.ends_with("weight");
        match x.shape().len() {
            2 => x.data_mut().iter_mut().for_each(|x| *x = deviation * normal()),
            _ => x.data_mut().fill(f32::from(is_norm)),
        }
    }
    model
}

/// [`initial_model`] with larger numbers, from which a model of width 64 learns sooner: their standard deviation is
/// 0.125 in the token embeddings, 0.075 in the position embeddings, and 0.05 in the weights.
pub fn initial_narrow_model(config: Config, seed: u64) -> Gpt2 {
    let mut model = initial_model(config, seed);
    for (name, x) in model.parameters_mut() {
        match name.as_str() {
            "wte.weight" => x.scale(6.25),
            "wpe.weight" => x.scale(3.75),
            name if name.contains(".c_") => x.scale(2.5),
            _ => {}
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Gpt2 {
        let sizes =
            Config { vocab_size: 11, block_size: 8, n_layer: 2, n_head: 3, n_embd: 12, ..Config::default() };
        Gpt2::random(sizes, 5)
    }

    fn batch() -> Vec<Example> {
        let ids = |i: u32| (0..3 + i % 6).map(|pos| (i * 7 + pos * pos * 3) % 11).collect::<Vec<u32>>();
        (0..11).map(|i| ids(i).into()).collect()
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let train = || {
            let mut trainer = Trainer::new(model(), TrainerConfig::default());
            let losses: Vec<f32> = (0..3).map(|_| trainer.step(&batch()).loss).collect();
            (losses, trainer.model.wte)
        };
        let expected = train();
        for threads in [1, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(train), expected, "{threads} threads");
        }
    }

    #[test]
    fn the_learning_rate_warms_up_and_falls() {
        let optimizer = AdamW { learning_rate: 1.0, ..AdamW::default() };
        let config = TrainerConfig {
            optimizer,
            warmup_steps: 4,
            max_steps: 12,
            final_learning_rate: 0.1,
            ..TrainerConfig::default()
        };
        let rates = [0, 3, 4, 8, 12, 100].map(|step| config.learning_rate(step));
        for (rate, expected) in rates.iter().zip([0.25, 1.0, 1.0, 0.55, 0.1, 0.1]) {
            assert!((rate - expected).abs() < 1e-6, "{rates:?}");
        }
        assert_eq!(TrainerConfig { optimizer, ..TrainerConfig::default() }.learning_rate(50), 1.0);
    }

    #[test]
    fn a_first_model_knows_nothing() {
        let model = initial_model(Config { vocab_size: 50, n_embd: 48, n_layer: 2, ..model().config }, 3);
        let n: usize = model.parameters().iter().map(|(_, x)| x.data().len()).sum();
        let weight = &model.h[0].mlp.c_fc.weight;
        let deviation =
            (weight.data().iter().map(|x| x * x).sum::<f32>() / weight.data().len() as f32).sqrt();
        assert!((deviation / 0.02 - 1.0).abs() < 0.05, "{deviation}");
        assert_eq!(n, model.config.n_parameters());
        let (loss, _) = loss_and_gradient(&model, &[vec![1, 2, 3, 4, 5].into()]);
        assert!((loss - 50.0_f32.ln()).abs() < 0.15, "{loss}");
    }

    #[test]
    #[should_panic(expected = "a batch of 1 sequences without a next token that counts has no loss")]
    fn a_sequence_of_one_token_has_no_loss() {
        loss_and_gradient(&model(), &[vec![1].into()]);
    }

    #[test]
    fn a_prediction_counts_by_its_weight() {
        let model = model();
        let ids = vec![1, 2, 3, 4];
        let gradient_of = |batch: &[Example]| {
            let (loss, gradient) = loss_and_gradient(&model, batch);
            (loss, gradient.h[0].mlp.c_fc.weight.clone())
        };
        let example = |weights: &[f32]| Example { ids: ids.clone(), weights: weights.to_vec() };
        // What counts twice is what stands there twice; what counts nothing is not there.
        let once = gradient_of(&[example(&[1.0, 0.0, 2.0])]);
        let twice = gradient_of(&[example(&[1.0, 0.0, 1.0]), example(&[0.0, 0.0, 1.0])]);
        assert!((once.0 - twice.0).abs() < 1e-6);
        for (a, b) in once.1.data().iter().zip(twice.1.data()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        assert_eq!(gradient_of(&[example(&[1.0, 0.0, 0.0])]).0, gradient_of(&[vec![1, 2].into()]).0);
    }
}
