//! The example `own_loop` in its quick form.

#[path = "../../examples/own_loop/images.rs"]
mod images;
#[path = "../../examples/own_loop/sentences.rs"]
mod sentences;

// One test, since both seed the generator that the threads share.
#[test]
fn the_example_ends_with_a_paired_verdict_and_a_page_for_both_networks() {
    let place = tempfile::tempdir().unwrap();
    let folder = |name: &str| place.path().join(name);
    let results = [
        images::compare(folder("images"), None, true).unwrap(),
        sentences::compare(folder("sentences"), true).unwrap(),
    ];
    for (name, results) in ["images", "sentences"].into_iter().zip(results) {
        assert_eq!((results.pairs.len(), &*results.unit), (3, name));
        assert!(results.pairs.iter().all(|pair| pair.p_loss.is_some()), "{:?}", results.verdict);
        assert!(!results.notes.iter().any(|note| note.starts_with("Not paired")), "{:?}", results.notes);
        assert!(super::text(&folder(name).join("report.html")).contains("Comparison of adamw, muon, muon_eq"));
    }
}
