//! Prompt sets against golden values.

use gpt2::{Pretrained, no_hook};
use lens::ioi;
use patching::Direction;
use patching::prompts::{Answer, PromptSet};

use crate::util::golden;

#[test]
fn the_tutorials_pairs_are_those_of_transformer_lens() {
    let tiny = Pretrained::tiny().unwrap();
    let set = PromptSet::ioi_tutorial();
    let golden = golden("ioi");
    let mut largest = 0.0_f32;
    for bos in [true, false] {
        let token = bos.then_some(gpt2::tokenizer::END_OF_TEXT);
        let pairs = set.tokenize(&tiny, token, Direction::Denoising).unwrap();
        let cases = golden.as_array().unwrap().iter();
        let cases: Vec<_> = cases.filter(|case| case["bos"] == bos).collect();
        assert_eq!(cases.len(), pairs.len());
        for (i, (pair, case)) in pairs.iter().zip(&cases).enumerate() {
            let texts = &set.pairs[i];
            let expected = ioi::PROMPTS[i].map(str::to_owned);
            assert_eq!([&expected[0]], [&texts.clean.words()]);
            let answers = [&texts.a[0], &texts.b[0]].map(Answer::words);
            assert_eq!(answers[..], expected[1..]);
            assert_eq!(case["prompt"], expected[0]);
            assert_eq!(case["correct"], expected[1]);
            assert_eq!(case["incorrect"], expected[2]);
            // The corrupted prompt is the other one of its names, with the other answer.
            let runs =
                [(pair.experiment.clean(), *case, 1.0), (pair.experiment.corrupted(), cases[i ^ 1], -1.0)];
            for (ids, case, sign) in runs {
                let logits = tiny.model.next_token_logits(ids, &mut no_hook);
                let got = logits[pair.a[0] as usize] - logits[pair.b[0] as usize];
                let expected = case["logit_diff"].as_f64().unwrap() as f32;
                largest = largest.max((got - sign * expected).abs());
            }
        }
    }
    println!("ioi tutorial: largest difference {largest:e}");
    assert!(largest < 1e-4, "largest difference {largest:e}");
}
