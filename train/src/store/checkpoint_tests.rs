use super::*;
use burn::tensor::TensorData;

fn checkpoint(step: u64) -> Checkpoint {
    let data = TensorData::new(vec![step as f32, 2.0], [2]);
    Checkpoint {
        model: vec![NamedTensor { name: "w".into(), data }],
        evaluation: None,
        optimizer: vec![1, 2, 3],
        trainer: TrainerState { step, tokens: step * 8, ..TrainerState::default() },
    }
}

fn store_with(steps: &[u64], keep: usize) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path().join("checkpoints"));
    for step in steps {
        store.write(&checkpoint(*step), keep).unwrap();
    }
    (folder, store)
}

fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_written_is_read_back() {
    let (_folder, store) = store_with(&[0, 5], 2);
    let back = store.newest_good(|_| panic!("nothing is damaged")).unwrap().unwrap();
    assert_eq!(back.trainer, checkpoint(5).trainer);
    assert_eq!(back.optimizer, [1, 2, 3]);
    assert_eq!(back.model[0].data.as_bytes(), checkpoint(5).model[0].data.as_bytes());
}

#[test]
fn the_newest_ones_and_step_zero_are_kept() {
    assert_eq!(store_with(&[0, 1, 2, 3, 4], 2).1.steps(), [0, 3, 4]);
    assert_eq!(store_with(&[0, 1, 2, 3, 4], 1).1.steps(), [0, 4]);
    assert_eq!(store_with(&[0, 1], 7).1.steps(), [0, 1]);
}

#[test]
fn a_damaged_checkpoint_does_not_count_as_kept() {
    let (_folder, store) = store_with(&[0, 1, 2, 3], 2);
    flip_a_bit(&store.folder(3).join(MODEL));
    store.write(&checkpoint(4), 2).unwrap();
    assert_eq!(store.steps(), [0, 2, 3, 4]);
    assert_eq!(store.newest_good(|_| ()).unwrap().unwrap().trainer.step, 4);
}

#[test]
fn a_flipped_bit_and_a_truncation_fall_back_and_say_which_file() {
    for file in [MODEL, OPTIMIZER, TRAINER, MARKER] {
        let (_folder, store) = store_with(&[0, 1, 2], 5);
        let path = store.folder(2).join(file);
        if file == OPTIMIZER {
            std::fs::write(&path, [1]).unwrap()
        } else {
            flip_a_bit(&path)
        }
        let mut said = Vec::new();
        let back = store.newest_good(|damage| said.push(damage.to_string())).unwrap().unwrap();
        assert_eq!(back.trainer.step, 1, "{file}");
        assert!(said.len() == 1 && said[0].contains(&path.display().to_string()), "{file}: {said:?}");
    }
}

#[test]
fn a_checkpoint_without_its_marker_does_not_count() {
    let (_folder, store) = store_with(&[0, 1], 5);
    std::fs::remove_file(store.folder(1).join(MARKER)).unwrap();
    assert_eq!(store.newest_good(|_| ()).unwrap().unwrap().trainer.step, 0);
    std::fs::remove_file(store.folder(0).join(MARKER)).unwrap();
    assert!(matches!(store.newest_good(|_| ()), Err(CheckpointError::NoneGood { .. })));
}

#[test]
fn a_newer_format_is_refused_and_not_skipped() {
    let (_folder, store) = store_with(&[0, 1], 5);
    let marker = store.folder(1).join(MARKER);
    let text = std::fs::read_to_string(&marker).unwrap().replace("\"format\":1", "\"format\":9");
    std::fs::write(&marker, text).unwrap();
    assert!(matches!(store.newest_good(|_| ()), Err(CheckpointError::Newer { format: 9, .. })));
}

#[test]
fn a_step_that_does_not_exist_lists_those_that_do() {
    let (_folder, store) = store_with(&[0, 3], 5);
    let said = store.load(2).unwrap_err().to_string();
    assert!(said.contains("step 2") && said.contains("0, 3"), "{said}");
}

#[test]
fn unfinished_checkpoints_are_removed_and_never_read() {
    let (_folder, store) = store_with(&[0], 5);
    fill(&store.path.join(".tmp-step-000007"), &checkpoint(7)).unwrap();
    assert_eq!(store.steps(), [0]);
    store.remove_unfinished();
    assert_eq!(std::fs::read_dir(&store.path).unwrap().count(), 1);
}

#[test]
fn a_failed_write_names_the_file_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let said = Store::new(&blocked).write(&checkpoint(0), 2).unwrap_err().to_string();
    assert!(said.contains("cannot create"), "{said}");
}
