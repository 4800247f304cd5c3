use gpt2::graph::{Circuit, Edge, Graph};
use gpt2::{Config, Gpt2};
use proptest::prelude::*;
use tensor::Tensor;

use super::judge::{self, Trial, Wanted, areas, faithfulness, nested, stability};
use super::ranking::{Known, kendall, roc};
use super::select::pruned;
use super::*;
use crate::{Direction, Engine, Experiment, Metric, Watch};

const METRIC: Metric<'static> = Metric::LogitDiff { a: &[0], b: &[1] };

/// A random small model, a pair of prompts and a direction.
fn random_experiment() -> impl Strategy<Value = (Gpt2, Experiment)> {
    let sizes = (1..4_usize, 1..4_usize, 1..6_usize, any::<u64>());
    let model = sizes.prop_map(|(n_layer, n_head, head_size, seed)| {
        let n_embd = n_head * head_size;
        let sizes = Config { vocab_size: 9, block_size: 8, n_layer, n_head, n_embd, ..Config::default() };
        let mut model = Gpt2::random(sizes.of_kin(seed), seed);
        let bias = (0..9).map(|i| (i as f32).sin()).collect();
        model.lm_head_bias = (seed & 16 == 0).then(|| Tensor::new(&[9], bias));
        model
    });
    let prompt = |t: usize| prop::collection::vec(0..9_u32, t);
    let parts = (model, 1..7_usize, prop::sample::select(Direction::ALL.to_vec()));
    parts.prop_flat_map(move |(model, t, direction)| {
        (prompt(t), prompt(t)).prop_filter_map("equal prompts", move |(clean, corrupted)| {
            let experiment = Experiment::new(&model, clean, corrupted, direction).ok()?;
            Some((model.clone(), experiment))
        })
    })
}

/// Some edges of a graph, by a number for each.
fn some_edges(graph: Graph, seed: u64, share: u64) -> Circuit {
    let mut circuit = Circuit::empty(graph);
    for (i, edge) in (0_u64..).zip(graph.edges()) {
        let hash = (i ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        circuit.set(edge, (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 54 < share);
    }
    circuit
}

fn metrics(t: usize) -> Vec<Metric<'static>> {
    let mut metrics = vec![METRIC, Metric::Kl, Metric::ProbDiff { a: &[1], b: &[0] }];
    if t > 1 {
        metrics.push(Metric::Loss { from: 0, to: t - 1 });
    }
    metrics
}

fn close(x: f32, y: f32) -> bool {
    (x - y).abs() < 2e-4 * (1.0 + y.abs())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn circuits_run_together_have_the_values_of_hooked_passes(
        (model, experiment) in random_experiment(),
        metric in any::<prop::sample::Index>(),
        replacement in prop::sample::select(Replacement::ALL.to_vec()),
        seed: u64,
    ) {
        let metric = *metric.get(&metrics(experiment.n_tokens()));
        let runs = Runs::new(&model, &experiment, metric, replacement, Watch::NOBODY).unwrap().unwrap();
        let graph = runs.graph();
        let shares = [0, 100, 500, 900, 1024];
        let mut circuits: Vec<Circuit> = shares.iter().map(|share| some_edges(graph, seed, *share)).collect();
        circuits.push(Circuit::whole(graph));
        let fast = runs.values(&circuits, Engine::default());
        let plain = runs.values(&circuits, Engine::Plain);
        for (fast, plain) in fast.iter().zip(&plain) {
            prop_assert!(close(fast.unwrap(), plain.unwrap()), "{fast:?}, not {plain:?}");
        }
        // One by one they have the same bits, whatever runs beside them.
        let alone = runs.values(&circuits, Engine::Incremental { memory: 0 });
        prop_assert_eq!(&alone, &fast);
        prop_assert_eq!(fast[5], Some(runs.ends().base));
        if replacement == Replacement::Source && !matches!(metric, Metric::Loss { .. }) {
            let source = runs.ends().clean + runs.ends().corrupted - runs.ends().base;
            prop_assert!(close(fast[0].unwrap(), source), "{:?}, not {source}", fast[0]);
        }
    }

    #[test]
    fn every_edge_has_the_effect_of_a_hooked_pass(
        (model, experiment) in random_experiment(),
        metric in any::<prop::sample::Index>(),
        replacement in prop::sample::select(Replacement::ALL.to_vec()),
    ) {
        let metric = *metric.get(&metrics(experiment.n_tokens()));
        let runs = Runs::new(&model, &experiment, metric, replacement, Watch::NOBODY).unwrap().unwrap();
        let edges: Vec<Edge> = runs.graph().edges().collect();
        let fast = runs.measure(&edges, Engine::default()).unwrap();
        let plain = runs.measure(&edges, Engine::Plain).unwrap();
        for ((edge, fast), (_, plain)) in fast.iter().zip(plain.iter()) {
            prop_assert!(close(fast, plain), "{edge}: {fast}, not {plain}");
        }
        let alone = runs.measure(&edges, Engine::Incremental { memory: 0 }).unwrap();
        prop_assert!(alone.iter().eq(fast.iter()), "{alone:?}, not {fast:?}");
        // A circuit that lacks one edge into the logits is that edge's run.
        let last = *edges.last().unwrap();
        let mut without = Circuit::whole(runs.graph());
        without.set(last, false);
        let value = runs.values(&[without], Engine::default())[0].unwrap();
        prop_assert!(close(value - runs.ends().base, fast.at(last)));
    }

    #[test]
    fn chains_of_tests_decide_as_one_test_after_the_other(
        (model, experiment) in random_experiment(),
        order in prop::sample::select(Order::ALL.to_vec()),
        threshold in prop::sample::select(vec![-0.01_f32, 0.0, 1e-4, 1e-3, 1e-2, 0.1]),
        kl: bool,
    ) {
        let metric = if kl { Metric::Kl } else { METRIC };
        let runs = Runs::new(&model, &experiment, metric, Replacement::Source, Watch::NOBODY).unwrap().unwrap();
        let by = By::towards_source(runs.ends());
        let pairs = [runs];
        let find = |engine| acdc(&pairs, threshold, by, order, engine);
        let [runs] = &pairs;
        let one = find(Engine::Plain).unwrap();
        let many = find(Engine::default()).unwrap();
        prop_assert_eq!(&one.circuit, &many.circuit);
        prop_assert_eq!(one.value.to_bits(), many.value.to_bits());
        prop_assert_eq!(one.tests, many.tests);
        prop_assert!(one.runs == one.tests);
        prop_assert!(one.tests <= runs.graph().edges().count());
        let value = runs.values(std::slice::from_ref(&one.circuit), Engine::Plain)[0].unwrap();
        prop_assert!(close(one.value, value), "{} not {value}", one.value);
    }

    #[test]
    fn kendall_is_what_its_definition_says(x in prop::collection::vec((0..6_i32, 0..6_i32), 0..40)) {
        let (x, y): (Vec<f32>, Vec<f32>) = x.into_iter().map(|(x, y)| (x as f32, y as f32)).unzip();
        let (mut sum, mut of_x, mut of_y) = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            for j in 0..i {
                let sign = |a: f32, b: f32| f64::from(i8::from(a > b) - i8::from(a < b));
                sum += sign(x[i], x[j]) * sign(y[i], y[j]);
                of_x += sign(x[i], x[j]).abs();
                of_y += sign(y[i], y[j]).abs();
            }
        }
        let expected: f64 = sum / f64::sqrt(of_x * of_y);
        let tau = kendall(&x, &y);
        prop_assert!((tau - expected).abs() < 1e-12 || tau.is_nan() && !expected.is_finite(), "{tau}, not {expected}");
    }
}

/// The scores of a graph of two layers with one head: 0, 1, 2 … in the order of its edges, with alternating signs.
fn numbered() -> Scores {
    let graph = Graph { n_layer: 2, n_head: 1 };
    let edges: Vec<Edge> = graph.edges().collect();
    let numbers: Vec<f32> =
        (0..edges.len()).map(|i| if i % 2 == 0 { i as f32 } else { -(i as f32) }).collect();
    Scores::of(graph, &edges, &numbers)
}

fn names(circuit: &Circuit) -> Vec<String> {
    circuit.edges().map(|edge| edge.to_string()).collect()
}

#[test]
fn edges_are_chosen_by_score_or_magnitude() {
    let scores = numbered();
    let all: Vec<(Edge, f32)> = scores.iter().collect();
    assert_eq!((all.len(), all[21].1, all[22].1), (23, -21.0, 22.0));
    let chosen = |selection: Selection, by| names(&selection.circuit(&scores, by));
    let name = |i: usize| all[i].0.to_string();
    assert_eq!(chosen(Selection::Top(2), By::Magnitude), [name(21), name(22)]);
    assert_eq!(chosen(Selection::Top(2), By::Rise), [name(20), name(22)]);
    assert_eq!(chosen(Selection::Top(1), By::Fall), [name(21)]);
    assert_eq!(chosen(Selection::Threshold(21.0), By::Rise), [name(22)]);
    assert_eq!(chosen(Selection::Threshold(21.0), By::Magnitude), [name(21), name(22)]);
    assert_eq!(chosen(Selection::Top(99), By::Rise).len(), 23);
}

#[test]
fn the_greedy_choice_grows_from_the_logits() {
    let scores = numbered();
    let circuit = Selection::Greedy(3).circuit(&scores, By::Magnitude);
    // The largest into the logits, then the largest into what was found.
    assert_eq!(names(&circuit), ["m0->logits", "a1.h0->logits", "m1->logits"]);
    for n in 0..20 {
        let circuit = Selection::Greedy(n).circuit(&scores, By::Rise);
        assert_eq!(circuit.len(), n);
        let is_heard = |edge: Edge| {
            edge.reader.writer().is_none_or(|writer| circuit.edges().any(|it| it.writer == writer))
        };
        assert!(circuit.edges().all(is_heard));
    }
}

#[test]
fn edges_that_lead_nowhere_are_pruned() {
    let graph = Graph { n_layer: 2, n_head: 1 };
    let mut circuit = Circuit::empty(graph);
    for edge in ["input->m0", "m0->a1.h0<q>", "a1.h0->m1", "a0.h0->logits", "input->logits"] {
        circuit.set(edge.parse().unwrap(), true);
    }
    // Nobody hears m1, so nobody needs a1.h0, nor m0; and a0.h0 hears nobody.
    assert_eq!(names(&pruned(&circuit)), ["input->logits"]);
    circuit.set("m1->logits".parse().unwrap(), true);
    assert_eq!(pruned(&circuit).len(), 5);
}

#[test]
fn a_file_is_read_as_it_was_written_and_foreign_ones_are_refused() {
    let scores = numbered();
    let circuit = Selection::Top(7).circuit(&scores, By::Rise);
    let text = file::to_json(&scores, &circuit, 8).unwrap();
    assert!(
        text.starts_with(r#"{"cfg":{"n_layers":2,"n_heads":1,"parallel_attn_mlp":false,"d_model":8}"#),
        "{text}"
    );
    let (read, of_file) = file::from_json(&text, scores.graph()).unwrap();
    assert!(of_file == circuit && read.iter().eq(scores.iter()));
    let error = |text: &str| file::from_json(text, scores.graph()).unwrap_err().to_string();
    assert!(error("[1]").starts_with("not a circuit in the form of EAP-IG"));
    assert!(error(&text.replace(r#""n_heads":1"#, r#""n_heads":3"#)).contains("this model has 2 with 1"));
    assert!(error(&text.replace("false,\"d_model", "true,\"d_model")).contains("parallel"));
    assert!(error(&text.replace("input->m0", "m1->m0")).contains("\"m1->m0\""));
}

#[test]
fn faithfulness_and_its_areas_follow_their_definitions() {
    assert_eq!(faithfulness(2.0, 1.0, 3.0), 0.5);
    assert!(faithfulness(2.0, 1.0, 1.0).is_nan());
    let [cpr, cmd] = areas(&[1.0; 10]);
    assert!((cpr - 0.999).abs() < 1e-12 && cmd == 0.0);
    let [cpr, cmd] = areas(&[0.5; 10]);
    assert!((cpr - 0.4995).abs() < 1e-12 && (cmd - 0.4995).abs() < 1e-12);
    let sizes: Vec<usize> = nested(&numbered(), By::Rise).iter().map(Circuit::len).collect();
    assert_eq!(sizes, [0, 0, 0, 0, 0, 1, 2, 4, 11, 23]);
}

#[test]
fn a_roc_of_a_perfect_ranking_has_the_area_one() {
    assert_eq!(roc(&[3.0, 2.0, 1.0, 0.0], &[true, true, false, false]).auc, 1.0);
    assert_eq!(roc(&[0.0, 1.0, 2.0, 3.0], &[true, true, false, false]).auc, 0.0);
    // Ties are one step, and what has no number comes last.
    assert_eq!(roc(&[1.0; 4], &[true, false, true, false]).auc, 0.5);
    let half = roc(&[5.0, f32::NAN, 4.0, 3.0], &[true, true, false, false]);
    assert_eq!((half.auc, half.points.len()), (0.5, 5));
    assert!(roc(&[1.0], &[true]).auc.is_nan());
}

#[test]
fn known_lists_are_read_and_what_the_model_lacks_is_refused() {
    let small = Graph { n_layer: 12, n_head: 12 };
    for (name, n) in Known::NAMES.into_iter().zip([26, 8]) {
        let known = Known::read(Known::named(name).unwrap(), small).unwrap();
        assert!(matches!(&known, Known::Heads(heads) if heads.len() == n), "{name}: {known:?}");
    }
    let tiny = Graph { n_layer: 2, n_head: 1 };
    assert!(
        matches!(Known::read("input->m0 # the first\nm0->logits", tiny), Ok(Known::Edges(edges)) if edges.len() == 2)
    );
    for (text, part) in [
        ("", "expected a list"),
        ("0.0 input->m0", "expected a list"),
        ("0.1", "no head 0.1"),
        ("m1->m0", "no edge m1->m0"),
        ("x", "invalid head"),
    ] {
        let error = Known::read(text, tiny).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let scores = numbered();
    let auc = Known::read("m1->logits", tiny).unwrap().roc(&scores).auc;
    assert!((auc - 1.0).abs() < 1e-12, "{auc}");
}

#[test]
fn a_selection_that_all_pairs_share_is_stable() {
    let scores = numbered();
    let same = stability(&[scores.clone(), scores.clone()], Selection::Top(5), By::Rise, 20, 1);
    assert!(
        (same.jaccard - 1.0).abs() < 1e-9 && same.shares.iter().all(|(_, share)| (share - 1.0).abs() < 1e-9)
    );
    let graph = scores.graph();
    let edges: Vec<Edge> = graph.edges().collect();
    let opposite: Vec<f32> = edges.iter().map(|edge| -10.0 * scores.at(*edge)).collect();
    let mixed =
        stability(&[scores, Scores::of(graph, &edges, &opposite)], Selection::Top(5), By::Rise, 200, 1);
    assert!(mixed.jaccard < 0.9 && mixed.shares.iter().any(|(_, share)| *share < 0.9), "{mixed:?}");
}

#[test]
fn a_verdict_puts_the_values_of_its_circuits_together() {
    let scores = numbered();
    let circuit = Selection::Top(6).circuit(&scores, By::Rise);
    let wanted = Wanted { curve: Some(By::Rise), subsets: 3, minimality: true, seed: 5 };
    let trial = Trial::of(&circuit, &scores, wanted);
    // A made-up metric of two pairs: so much for each edge.
    let value = |per_edge: f32| trial.circuits().iter().map(|it| 1.0 + per_edge * it.len() as f32).collect();
    let verdict = trial.verdict(&[value(1.0), value(3.0)]);
    assert_eq!((verdict.whole, verdict.empty, verdict.circuit, verdict.complement), (47.0, 1.0, 13.0, 35.0));
    assert!((verdict.faithfulness - 6.0 / 23.0).abs() < 1e-9);
    assert!(verdict.by_pair.iter().all(|pair| (pair.faithfulness - 6.0 / 23.0).abs() < 1e-6));
    let curve = verdict.curve.unwrap();
    assert_eq!(
        curve.points.iter().map(|point| point.n_edges).collect::<Vec<_>>(),
        [0, 0, 0, 0, 0, 1, 2, 4, 11, 23]
    );
    assert!((curve.points[9].faithfulness - 1.0).abs() < 1e-9 && curve.cpr > 0.4 && curve.cmd < 0.6);
    assert_eq!((verdict.completeness.len(), verdict.minimality.len()), (3, judge::nodes(&circuit).len()));
    for (node, change) in verdict.minimality {
        let n = circuit.edges().filter(|edge| edge.writer == node).count() as f64;
        assert!((change - n / 23.0).abs() < 1e-6, "{node}: {change}");
    }
}

#[test]
fn subsets_of_nodes_are_taken_out_with_all_their_edges() {
    let circuit = Circuit::whole(Graph { n_layer: 2, n_head: 1 });
    let nodes = judge::nodes(&circuit);
    assert_eq!(nodes.len(), 4);
    let rest = judge::without(&circuit, &nodes[..1]);
    assert!(rest.edges().all(|edge| edge.writer != nodes[0]) && rest.len() < circuit.len());
    let subsets = judge::random_subsets(&circuit, 50, 3);
    assert!(subsets.iter().any(|subset| subset.len() == 1) && subsets.iter().any(|subset| subset.len() == 3));
}

#[test]
fn what_has_no_circuit_is_refused() {
    let sizes =
        Config { vocab_size: 9, block_size: 8, n_layer: 2, n_head: 2, n_embd: 4, ..Config::default() };
    let model = Gpt2::random(sizes, 1);
    let ablation = Experiment::ablation(&model, vec![1, 2], crate::Ablation::Zero).unwrap();
    assert!(Runs::new(&model, &ablation, METRIC, Replacement::Zero, Watch::NOBODY).is_err());
    let experiment = Experiment::new(&model, vec![1, 2], vec![1, 3], Direction::Noising).unwrap();
    let runs = |metric, replacement| {
        Runs::new(&model, &experiment, metric, replacement, Watch::NOBODY).unwrap().unwrap()
    };
    assert!(runs(Metric::Rank { token: 1 }, Replacement::Source).predict(Prediction::Eap).is_err());
    assert!(runs(METRIC, Replacement::Zero).predict(Prediction::EapIg { steps: 5 }).is_err());
    assert!(runs(METRIC, Replacement::Zero).predict(Prediction::Eap).is_ok());
}
