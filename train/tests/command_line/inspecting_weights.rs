//! What `polaron inspect` measures in the weights and the optimizer states of a run.

use crate::support::Place;

#[test]
fn conditioning_shows_every_equilibration_of_every_hidden_matrix() {
    let place = Place::new();
    place.train(&["--steps", "6", "--optimizer", "muon", "--out", "run"]).succeeds();
    let said = place.run(&["inspect", "run", "--conditioning"]).succeeds().out;
    assert!(said.contains("Step 6 of `run`") && said.contains("G is the momentum in the optimizer record"), "{said}");
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let first = rows.iter().position(|row| row.first() == Some(&"blocks.0.attn.wq.weight")).expect(&said);
    for (row, mode) in rows[first..first + 4].iter().zip(["none", "output", "input", "both"]) {
        let numbers = &row[row.len() - 6..];
        assert_eq!(numbers[0], mode, "{said}");
        let [rank, _, below, error, cosine] = [1, 2, 3, 4, 5].map(|at| numbers[at].parse::<f64>().unwrap());
        assert!((1.0..=16.0).contains(&rank) && (0.0..=1.0).contains(&below) && error < 1.0, "{said}");
        assert!(cosine > 0.2 && (mode != "none" || cosine == 1.0), "{said}");
    }
    assert!(!said.contains("embed") && !said.contains("norm.weight"), "{said}");
    // The last rows are the means.
    let column = |at: usize| {
        rows[first..]
            .iter()
            .filter(move |row| row.iter().rev().nth(5) == Some(&"none"))
            .map(move |row| row[row.len() - at].parse::<f64>().unwrap())
    };
    let errors: Vec<f64> = column(2).collect();
    let (mean, each) = errors.split_last().unwrap();
    assert!((mean - each.iter().sum::<f64>() / each.len() as f64).abs() < 1e-3, "{said}");
    assert!(said.contains(&format!("mean of {}", each.len())), "{said}");
}

#[test]
fn conditioning_without_a_momentum_says_what_is_missing() {
    let place = Place::new();
    place.train(&["--steps", "1", "--optimizer", "muon", "--out", "new"]).succeeds();
    // Before the first step there is none.
    std::fs::remove_dir_all(place.path("new/checkpoints/step-000001")).unwrap();
    place.run(&["inspect", "new", "--conditioning"]).fails(2, &["step 0 in `new`", "holds no momentum"]);
    place.run(&["inspect", "llama-d64", "--conditioning"]).fails(2, &["llama-d64"]);
    place.run(&["inspect", "new", "--conditioning", "--time"]).fails(2, &["--time"]);
}

#[test]
fn circulant_measures_the_rows_of_words_and_compares_their_order_with_others() {
    let place = Place::new();
    place.train(&["--steps", "2", "--out", "run"]).succeeds();
    let said = place.run(&["inspect", "run", "--circulant", "a,e,g,h,i"]).succeeds().out;
    assert!(said.contains("5 words") && said.contains("step 2 of `run`"), "{said}");
    for name in ["embedding", "head"] {
        let line = said.lines().find(|line| line.starts_with(name)).expect(&said);
        if !line.contains("that of") {
            let numbers: Vec<f64> = line.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect();
            assert!(numbers.len() == 3 && numbers.iter().all(|number| (0.0..=1.0).contains(number)), "{said}");
            assert!(numbers[0] > 0.0 && numbers[2] > 0.05, "first weights stand on no circle: {said}");
        }
    }
    let refused = |words: &str, fragment: &str| {
        place.run(&["inspect", "run", "--circulant", words]).fails(2, &["--circulant", fragment]);
    };
    refused("king,queen,fool,ghost", "`king` is 4 tokens");
    refused("a,e,i", "at least four");
    refused("a,e,i,a", "`a` twice");
}
