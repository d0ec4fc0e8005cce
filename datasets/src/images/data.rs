//! Images with class labels: an embedded set, or the four IDX files of MNIST and similar sets.

use std::path::Path;

use super::idx::{RawImages, read_images, read_labels};
use crate::draw::shuffled;
use crate::embedded::{self, DATASETS, DIGITS, IMAGE_DATASETS};
use crate::errors::{DataError, ImageError};
use crate::split::{check_fraction, training_part};

/// Side of an embedded digit, in pixels.
const DIGITS_SIDE: usize = 8;
/// Largest pixel value of an embedded digit.
const DIGITS_WHITE: f32 = 16.0;
/// The seed of the order in which the embedded digits are split: their number.
const DIGITS_ORDER: u64 = 1797;

/// Images (or any vectors) with class labels, split into training and validation.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageData {
    /// Name of the embedded set, or the given path.
    pub name: String,
    /// The training split.
    pub train: Images,
    /// The validation split.
    pub valid: Images,
    /// Number of classes; every label is below it.
    pub classes: usize,
    /// Height and width of an image, in pixels.
    pub shape: [usize; 2],
}

/// Images of one size with their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Images {
    /// Brightness in [0, 1], row-major `[count, features]`; the features are the rows of the image, one after the other.
    pub pixels: Vec<f32>,
    /// Class of every image, `[count]`.
    pub labels: Vec<u8>,
    /// Pixels of one image.
    pub features: usize,
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of image `i`, `[features]`; empty beyond the last one.
    pub fn row(&self, i: usize) -> &[f32] {
        let start = i.saturating_mul(self.features);
        self.pixels.get(start..start.saturating_add(self.features)).unwrap_or_default()
    }

    fn push(&mut self, pixels: &[f32], label: u8) {
        self.pixels.extend_from_slice(pixels);
        self.labels.push(label);
    }

    /// Images from bytes; 255 becomes 1.
    fn from_raw(raw: RawImages, labels: Vec<u8>) -> Self {
        let pixels = raw.pixels.into_iter().map(|byte| f32::from(byte) / 255.0).collect();
        Self { pixels, labels, features: raw.shape.iter().product() }
    }
}

impl ImageData {
    /// Reads an embedded set by name ([`IMAGE_DATASETS`](crate::IMAGE_DATASETS)) or, with any other `source`, the four IDX files in the folder
    /// at that path: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    /// `t10k-labels-idx1-ubyte`, each with or without the ending `.gz`. The files of `t10k` are the validation split.
    ///
    /// `valid_fraction`: the fraction of an embedded set for validation; 0.2 is usual. The `digits` are shuffled in the same
    /// way for every seed: starting from the order of the file, position i is swapped
    /// with position `(splitmix64(splitmix64(1797) + i) * (i + 1)) >> 64` in 128-bit arithmetic, for i from the last
    /// one down to 1. The first `N * (1 - valid_fraction)` images, truncated to a whole number, are the training split.
    ///
    /// # Errors
    ///
    /// [`DataError::BadFraction`], and one [`ImageError`] each for: no such set or folder, a missing or unreadable
    /// file, a damaged one (gzip stream, magic number, length), images and labels that differ in number, splits whose
    /// images differ in size, a split without images.
    pub fn load(source: &str, valid_fraction: f64) -> Result<Self, DataError> {
        check_fraction(valid_fraction)?;
        match source {
            DIGITS => digits(valid_fraction),
            folder => read_folder(folder),
        }
    }
}

fn read_folder(source: &str) -> Result<ImageData, DataError> {
    let folder = Path::new(source);
    if embedded::has(DATASETS, source) && !folder.exists() {
        return Err(ImageError::NotImages { name: source.into() }.into());
    }
    if !folder.is_dir() {
        let (embedded, hint) = embedded::names_and_hint(IMAGE_DATASETS, source);
        return Err(ImageError::Unknown { source_name: source.into(), embedded, hint }.into());
    }
    let train = read_images(folder, "train-images-idx3-ubyte")?;
    let train_labels = read_labels(folder, "train-labels-idx1-ubyte", &train)?;
    let valid = read_images(folder, "t10k-images-idx3-ubyte")?;
    let valid_labels = read_labels(folder, "t10k-labels-idx1-ubyte", &valid)?;
    if train.shape != valid.shape {
        return Err(ImageError::ShapeMismatch { path: valid.path, found: valid.shape, expected: train.shape }.into());
    }
    let shape = train.shape;
    let (train, valid) = (Images::from_raw(train, train_labels), Images::from_raw(valid, valid_labels));
    Ok(ImageData { name: source.into(), classes: classes(&train, &valid), train, valid, shape })
}

/// One more than the largest label.
fn classes(train: &Images, valid: &Images) -> usize {
    train.labels.iter().chain(&valid.labels).max().map_or(0, |label| usize::from(*label) + 1)
}

fn digits(valid_fraction: f64) -> Result<ImageData, DataError> {
    let all = embedded_digits()?;
    let border = training_part(all.len() as u64, valid_fraction) as usize;
    let mut splits = [Images { features: all.features, ..Images::default() }, Images::default()];
    splits[1].features = all.features;
    for (position, image) in shuffled(all.len(), DIGITS_ORDER).into_iter().enumerate() {
        let label = all.labels.get(image).copied().unwrap_or_default();
        splits[usize::from(position >= border)].push(all.row(image), label);
    }
    let [train, valid] = splits;
    for (split, images) in [("training", &train), ("validation", &valid)] {
        if images.is_empty() {
            return Err(ImageError::EmptySplit { name: DIGITS.into(), split, valid_fraction }.into());
        }
    }
    let classes = classes(&train, &valid);
    Ok(ImageData { name: DIGITS.into(), train, valid, classes, shape: [DIGITS_SIDE, DIGITS_SIDE] })
}

fn embedded_digits() -> Result<Images, DataError> {
    let damaged = |source| DataError::Embedded { name: DIGITS, source };
    let features = DIGITS_SIDE * DIGITS_SIDE;
    let mut images = Images { features, ..Images::default() };
    for line in embedded::digits()?.lines() {
        let values: Result<Vec<u8>, _> = line.split(',').map(str::parse).collect();
        let values = values.map_err(|error| damaged(std::io::Error::other(error)))?;
        let Some((label, pixels)) = values.split_last().filter(|(_, pixels)| pixels.len() == features) else {
            return Err(damaged(std::io::Error::other("a line is not 65 numbers")));
        };
        let pixels: Vec<f32> = pixels.iter().map(|value| f32::from(*value) / DIGITS_WHITE).collect();
        images.push(&pixels, *label);
    }
    Ok(images)
}
