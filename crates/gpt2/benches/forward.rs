//! One block of GPT-2 small's size, and one forward pass of the tiny model: `cargo bench -p gpt2`.

use criterion::{Criterion, criterion_group, criterion_main};
use gpt2::model::{Hooks, Kernel, no_hook};
use gpt2::{Config, Gpt2, Pretrained};
use tensor::Tensor;

fn forward(c: &mut Criterion) {
    let sizes =
        Config { vocab_size: 2, block_size: 11, n_layer: 1, n_head: 12, n_embd: 768, ..Config::default() };
    let model = Gpt2::random(sizes, 1);
    let x = Tensor::new(&[11, 768], (0..11 * 768).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect());
    c.bench_function("one block of GPT-2 small, 11 tokens", |b| {
        b.iter(|| {
            model.h[0].forward(x.clone(), &mut Hooks { hook: &mut no_hook, layer: 0, kernel: Kernel::Plain })
        });
    });

    let tiny = Pretrained::tiny().unwrap_or_else(|e| panic!("{e}"));
    let ids = [48736, 5437, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738];
    c.bench_function("one forward pass of tiny, 11 tokens", |b| {
        b.iter(|| tiny.model.next_token_logits(&ids, &mut no_hook));
    });
}

criterion_group!(benches, forward);
criterion_main!(benches);
