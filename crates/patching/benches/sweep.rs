//! The main job's sweep of the tiny model on both engines: `cargo bench -p patching`.

use criterion::{Criterion, criterion_group, criterion_main};
use gpt2::Pretrained;
use patching::{Direction, Engine, Experiment, Metric, SiteKind, Sweep};

fn main_job(c: &mut Criterion) {
    let tiny = Pretrained::tiny().unwrap_or_else(|e| panic!("{e}"));
    let clean = vec![48736, 5437, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738];
    let mut corrupted = clean.clone();
    corrupted[1] = 4176;
    let experiment = Experiment::new(&tiny.model, clean, corrupted, Direction::Denoising);
    let experiment = experiment.unwrap_or_else(|e| panic!("{e}"));
    let metric = Metric::LogitDiff { a: &[4176], b: &[5437] };
    let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
    let mut group = c.benchmark_group("the main job on tiny");
    for (name, engine) in [("incremental", Engine::default()), ("plain", Engine::Plain)] {
        group.bench_function(name, |b| b.iter(|| sweep.run(&tiny.model, metric, engine, &|_| {})));
    }
    group.finish();
}

criterion_group!(benches, main_job);
criterion_main!(benches);
