//! Matrix products of the shapes that GPT-2 small needs: `cargo bench -p tensor`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tensor::{Tensor, linear, matmul, matmul_transposed};

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("products");
    for [k, n] in [[768, 2304], [768, 768], [768, 3072], [3072, 768]] {
        let (weight, bias) = (Tensor::new(&[k, n], vec![0.5; k * n]), vec![0.5; n]);
        for m in [11, 132, 512] {
            let x = Tensor::new(&[m, k], vec![0.5; m * k]);
            group.throughput(Throughput::Elements((2 * m * k * n) as u64));
            let shape = format!("{m}x{k}x{n}");
            group.bench_function(BenchmarkId::new("linear", &shape), |b| {
                b.iter(|| linear(&x, &weight, &bias))
            });
            group.bench_function(BenchmarkId::new("matmul", &shape), |b| b.iter(|| matmul(&x, &weight)));
        }
    }
    let (x, unembedding) =
        (Tensor::new(&[1, 768], vec![0.5; 768]), Tensor::new(&[50257, 768], vec![0.5; 50257 * 768]));
    group.throughput(Throughput::Elements(2 * 768 * 50257));
    group.bench_function("matmul_transposed/1x768x50257", |b| b.iter(|| matmul_transposed(&x, &unembedding)));
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
