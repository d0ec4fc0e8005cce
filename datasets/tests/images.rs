//! Promises of [`polaron_datasets::ImageData`] and its sampler. The expected numbers come from `images_reference.py`
//! beside this file.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use polaron_datasets::{
    DataError, IMAGE_DATASETS, ImageData, ImageError, ImageSampler, Images, TextData, TokenizerKind, image_batches,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const VALID_IMAGES: &str = "t10k-images-idx3-ubyte";
const VALID_LABELS: &str = "t10k-labels-idx1-ubyte";

fn idx(magic: u32, dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let header = [&[magic], dimensions].concat().into_iter().flat_map(u32::to_be_bytes);
    header.chain(elements.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Three training and two validation images of 2 x 3 pixels.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..18).map(|value| value * 15).collect();
    let files = [
        (TRAIN_IMAGES, idx(0x0803, &[3, 2, 3], &pixels)),
        (TRAIN_LABELS, idx(0x0801, &[3], &[1, 0, 4])),
        (VALID_IMAGES, idx(0x0803, &[2, 2, 3], &pixels[..12])),
        (VALID_LABELS, idx(0x0801, &[2], &[2, 1])),
    ];
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn load(folder: &Path) -> Result<ImageData, DataError> {
    ImageData::load(folder.to_str().unwrap(), 0.2)
}

/// The error after `name` was replaced by `bytes`.
#[track_caller]
fn error_with(name: &str, bytes: &[u8]) -> String {
    let folder = folder();
    std::fs::write(folder.path().join(name), bytes).unwrap();
    let said = load(folder.path()).unwrap_err().to_string();
    assert!(said.contains(name), "{said}");
    said
}

fn digest(images: &Images) -> String {
    let bytes = (0..images.len()).flat_map(|i| {
        let pixels = images.row(i).iter().map(|value| (value * 16.0) as u8);
        pixels.chain([images.labels[i]]).collect::<Vec<u8>>()
    });
    let bytes: Vec<u8> = bytes.collect();
    hex::encode(Sha256::digest(bytes))
}

#[test]
fn the_embedded_digits_are_split_as_another_program_splits_them() {
    let data = ImageData::load("digits", 0.2).unwrap();
    assert_eq!((data.name.as_str(), data.classes, data.shape), ("digits", 10, [8, 8]));
    assert_eq!((data.train.len(), data.valid.len(), data.train.features, data.valid.features), (1437, 360, 64, 64));
    assert_eq!(data.train.labels[..12], [2, 6, 2, 3, 9, 8, 5, 4, 4, 6, 7, 2]);
    assert_eq!(digest(&data.train), "7433fa2bae4520591843260e8f75ed9af4102eba338ffad30ff37c5c6bd5e032");
    assert_eq!(digest(&data.valid), "d608ae24254f37dc7784a1797f24824fde9801c5554ea5bd25b473b8eb5be563");
}

#[test]
fn every_listed_set_loads_with_pixels_and_labels_in_range() {
    for info in IMAGE_DATASETS {
        let data = ImageData::load(info.name, 0.2).unwrap();
        for split in [&data.train, &data.valid] {
            assert!(!split.is_empty());
            assert_eq!(split.pixels.len(), split.len() * split.features);
            assert!(split.pixels.iter().all(|value| (0.0..=1.0).contains(value)));
            assert!(split.labels.iter().all(|label| usize::from(*label) < data.classes));
        }
    }
}

#[test]
fn another_share_moves_the_border_and_keeps_the_order() {
    let (fifth, half) = (ImageData::load("digits", 0.2).unwrap(), ImageData::load("digits", 0.5).unwrap());
    assert_eq!((half.train.len(), half.valid.len()), (898, 899));
    assert_eq!(half.train.pixels[..], fifth.train.pixels[..half.train.pixels.len()]);
}

#[test]
fn a_share_that_leaves_a_split_empty_is_refused() {
    let said = ImageData::load("digits", 0.9999).unwrap_err().to_string();
    assert!(said.contains("training split of `digits` without images"), "{said}");
    for value in [0.0, 1.0, f64::NAN] {
        assert!(matches!(ImageData::load("digits", value), Err(DataError::BadFraction { .. })), "{value}");
    }
}

#[test]
fn four_idx_files_become_two_splits() {
    let data = load(folder().path()).unwrap();
    assert_eq!((data.classes, data.shape), (5, [2, 3]));
    assert_eq!((data.train.labels, data.valid.labels), (vec![1, 0, 4], vec![2, 1]));
    assert_eq!(data.train.pixels[17], 1.0);
    assert_eq!(data.train.features, 6);
    let third: Vec<f32> = (12..18).map(|value| value as f32 * 15.0 / 255.0).collect();
    let rows = Images { pixels: data.train.pixels, labels: vec![0; 3], features: 6 };
    assert_eq!(rows.row(2), third);
    assert!(rows.row(3).is_empty());
}

#[test]
fn packed_files_give_the_same_with_and_without_their_ending() {
    let (plain, packed) = (folder(), folder());
    for name in [TRAIN_IMAGES, TRAIN_LABELS, VALID_IMAGES] {
        let path = packed.path().join(name);
        std::fs::write(path.with_extension("gz"), gzip(&std::fs::read(&path).unwrap())).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    let labels = packed.path().join(VALID_LABELS);
    std::fs::write(&labels, gzip(&std::fs::read(&labels).unwrap())).unwrap();
    let (plain, packed) = (load(plain.path()).unwrap(), load(packed.path()).unwrap());
    assert_eq!((plain.train, plain.valid), (packed.train, packed.valid));
}

#[test]
fn a_missing_file_says_where_to_get_one() {
    for name in [TRAIN_IMAGES, TRAIN_LABELS, VALID_IMAGES, VALID_LABELS] {
        let folder = folder();
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let said = load(folder.path()).unwrap_err().to_string();
        for part in [name, folder.path().to_str().unwrap(), "dataset-fashion-mnist"] {
            assert!(said.contains(part), "{said}");
        }
    }
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let said = error_with(TRAIN_IMAGES, &idx(0x0801, &[3], &[1, 0, 4]));
    assert!(said.contains("begins with 0x00000801") && said.contains("begins with 0x00000803"), "{said}");
    let said = error_with(VALID_LABELS, b"<html>not found</html>");
    assert!(said.contains("begins with 0x3c68746d"), "{said}");
}

#[test]
fn a_file_of_another_length_is_refused() {
    for elements in [17, 19] {
        let said = error_with(TRAIN_IMAGES, &idx(0x0803, &[3, 2, 3], &vec![0; elements]));
        assert!(said.contains(&format!("{} bytes", 16 + elements)) && said.contains("asks for 34"), "{said}");
    }
    for bytes in [&b""[..], b"\0\0\x08", &idx(0x0803, &[3], &[])] {
        let said = error_with(TRAIN_IMAGES, bytes);
        assert!(said.contains("at least 16"), "{said}");
    }
    let said = error_with(TRAIN_IMAGES, &idx(0x0803, &[u32::MAX; 3], &[0]));
    assert!(said.contains("17 bytes"), "{said}");
}

#[test]
fn a_damaged_gzip_stream_is_refused() {
    let whole = gzip(&idx(0x0803, &[3, 2, 3], &[7; 18]));
    let said = error_with(TRAIN_IMAGES, &whole[..whole.len() - 4]);
    assert!(said.contains("cannot be decompressed"), "{said}");
}

#[test]
fn images_and_labels_must_agree_in_number_and_size() {
    let said = error_with(TRAIN_LABELS, &idx(0x0801, &[2], &[1, 0]));
    assert!(said.contains("3 images") && said.contains("2 labels"), "{said}");
    let said = error_with(VALID_IMAGES, &idx(0x0803, &[2, 3, 3], &[0; 18]));
    assert!(said.contains("3 x 3 pixels") && said.contains("2 x 3"), "{said}");
    let said = error_with(TRAIN_IMAGES, &idx(0x0803, &[0, 2, 3], &[]));
    assert!(said.contains("has no images"), "{said}");
}

#[test]
fn a_source_that_is_not_a_set_of_images_is_refused() {
    for source in ["no/such/folder", "digts"] {
        let error = ImageData::load(source, 0.2).unwrap_err();
        assert!(matches!(error, DataError::Images(ImageError::Unknown { .. })), "{error}");
        assert!(error.to_string().contains(source) && error.to_string().contains("(digits)"), "{error}");
    }
    let said = ImageData::load("shakespeare", 0.2).unwrap_err().to_string();
    assert!(said.contains("is a text, not a set of images"), "{said}");
    let said = TextData::load("digits", TokenizerKind::Char, 0.1).unwrap_err().to_string();
    assert!(said.contains("is a set of images, not a text"), "{said}");
}

fn numbered(count: usize) -> Images {
    Images { pixels: (0..count).map(|i| i as f32).collect(), labels: vec![1; count], features: 1 }
}

#[test]
fn draws_are_those_another_program_makes() {
    type Case = (u64, u64, usize, usize, &'static [usize]);
    let cases: [Case; 4] = [
        (1337, 0, 4, 1437, &[277, 1138, 1182, 608]),
        (1337, 1999, 4, 60_000, &[20_211, 22_144, 56_208, 26_019]),
        (0, 3, 3, 10, &[9, 5, 5]),
        (u64::MAX, u64::MAX, 5, 1437, &[1344, 550, 348, 1281, 456]),
    ];
    for (seed, step, batch, count, expected) in cases {
        let images = numbered(count);
        let sampler = ImageSampler::new(&images, seed, batch).unwrap();
        assert_eq!(sampler.indices(step), expected, "seed {seed}, step {step}");
        let drawn = sampler.batch(step);
        assert_eq!((drawn.rows(), drawn.features(), drawn.labels(0..batch)), (batch, 1, vec![1; batch]));
        let expected: Vec<f32> = expected.iter().map(|i| *i as f32).collect();
        assert_eq!(drawn.pixels(0..batch), expected);
        assert_eq!(drawn.pixels(1..2), expected[1..2]);
    }
}

#[test]
fn validation_visits_every_image_once_and_in_order() {
    let images = numbered(10);
    for rows in [0, 1, 3, 10, 99] {
        let pixels: Vec<f32> = image_batches(&images, rows).flat_map(|batch| batch.pixels(0..batch.rows())).collect();
        assert_eq!(pixels, images.pixels, "{rows} rows");
    }
    let rows: Vec<usize> = image_batches(&images, 4).map(|batch| batch.rows()).collect();
    assert_eq!(rows, [4, 4, 2]);
}

#[test]
fn a_sampler_needs_images_and_rows() {
    assert!(matches!(ImageSampler::new(&numbered(3), 0, 0), Err(DataError::Zero { what: "batch" })));
    assert!(matches!(ImageSampler::new(&numbered(0), 0, 1), Err(DataError::Zero { what: "images" })));
}
