//! Images with class labels: an embedded set, or the four IDX files of MNIST and its kin.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::idx::{RawImages, read_images, read_labels};
use crate::{DataError, DatasetInfo, ImageError, splitmix64};

const DIGITS: &str = "digits";
const DIGITS_GZ: &[u8] = include_bytes!("../data/digits.csv.gz");
/// Side of an embedded digit, in pixels.
const DIGITS_SIDE: usize = 8;
/// Largest pixel value of an embedded digit.
const DIGITS_WHITE: f32 = 16.0;
/// Fixes the order in which the embedded digits are split: `splitmix64` of their number.
const DIGITS_ORDER: u64 = 1797;

/// The embedded sets of images.
pub const IMAGE_DATASETS: &[DatasetInfo] = &[DatasetInfo {
    name: DIGITS,
    description: "handwritten digits: 1,797 images of 8 x 8 pixels, 10 classes",
    origin: "Optical Recognition of Handwritten Digits (test part), E. Alpaydin and C. Kaynak, UCI repository, 1998",
    licence: "CC BY 4.0",
}];

/// Images (or any vectors) with class labels, split into training and validation.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageData {
    /// Name of the embedded set, or the path as it was given.
    pub name: String,
    /// Images to learn from.
    pub train: Images,
    /// Images to measure on.
    pub valid: Images,
    /// Number of classes; every label is below it.
    pub classes: usize,
    /// Height and width of an image, in pixels.
    pub shape: [usize; 2],
}

/// Images of one size with their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Images {
    /// Brightness in [0, 1], row-major `[count, features]`; the features are the image's rows, one after the other.
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

    /// Whether there is no image.
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

    /// Images from bytes: 255 becomes 1.
    fn from_raw(raw: RawImages, labels: Vec<u8>) -> Self {
        let pixels = raw.pixels.into_iter().map(|byte| f32::from(byte) / 255.0).collect();
        Self { pixels, labels, features: raw.shape.iter().product() }
    }
}

impl ImageData {
    /// Reads an embedded set by name ([`IMAGE_DATASETS`]) or, with any other `source`, the four IDX files in the folder
    /// at that path: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    /// `t10k-labels-idx1-ubyte`, each as it is or with the ending `.gz`. The files of `t10k` are the validation split.
    ///
    /// `valid_fraction`: share of an embedded set that is kept for validation; 0.2 is usual. The `digits` are shuffled
    /// once and for all, the same way for every seed: starting from the order of the file, position i trades places
    /// with position `(splitmix64(splitmix64(1797) + i) * (i + 1)) >> 64` in 128-bit arithmetic, for i from the last
    /// one down to 1. The first `N * (1 - valid_fraction)` images, truncated to a whole number, are the training split.
    ///
    /// # Errors
    ///
    /// [`DataError::BadFraction`], and one [`ImageError`] each for: no such set or folder, a missing or unreadable
    /// file, a damaged one (gzip stream, magic number, length), images and labels that differ in number, splits that
    /// differ in size of image, a split without any image.
    pub fn load(source: &str, valid_fraction: f64) -> Result<Self, DataError> {
        crate::text::check_fraction(valid_fraction)?;
        match source {
            DIGITS => digits(valid_fraction),
            folder => read_folder(folder),
        }
    }
}

fn read_folder(source: &str) -> Result<ImageData, DataError> {
    let folder = Path::new(source);
    if crate::text::DATASETS.iter().any(|info| info.name == source) && !folder.exists() {
        return Err(ImageError::NotImages { name: source.into() }.into());
    }
    if !folder.is_dir() {
        let embedded: Vec<&str> = IMAGE_DATASETS.iter().map(|info| info.name).collect();
        return Err(ImageError::Unknown { source_name: source.into(), embedded: embedded.join(", ") }.into());
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
    let border = (all.len() as f64 * (1.0 - valid_fraction)) as usize;
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

/// One image a line: 64 pixels from 0 to 16, then the digit.
fn embedded_digits() -> Result<Images, DataError> {
    let damaged = |problem: std::io::Error| DataError::Embedded { name: DIGITS, source: problem };
    let mut text = String::new();
    GzDecoder::new(DIGITS_GZ).read_to_string(&mut text).map_err(damaged)?;
    let features = DIGITS_SIDE * DIGITS_SIDE;
    let mut images = Images { features, ..Images::default() };
    for line in text.lines() {
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

/// The numbers below `count` in an order that `seed` alone fixes.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let key = splitmix64(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(splitmix64(key.wrapping_add(last as u64)), last + 1));
    }
    order
}

/// `x` of 2^64, scaled to a whole number below `count`.
fn below(x: u64, count: usize) -> usize {
    ((u128::from(x) * count as u128) >> 64) as usize
}

/// Some images, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageBatch {
    /// Brightness in [0, 1], `[rows, features]`.
    pub pixels: Vec<f32>,
    /// Class of every image, `[rows]`.
    pub labels: Vec<i32>,
    /// Number of images.
    pub rows: usize,
    /// Pixels of one image.
    pub features: usize,
}

impl ImageBatch {
    /// The images with those numbers.
    fn gather(images: &Images, numbers: impl Iterator<Item = usize>) -> Self {
        let mut batch = Self { features: images.features, ..Self::default() };
        for number in numbers {
            let Some(label) = images.labels.get(number) else { continue };
            batch.pixels.extend_from_slice(images.row(number));
            batch.labels.push(i32::from(*label));
            batch.rows += 1;
        }
        batch
    }
}

/// The training images of every step, drawn with replacement.
///
/// A counter-based generator draws them, as for [`Windows`](crate::Windows): step and row alone fix an image, so
/// resuming needs no saved generator state and another program can draw the same batches.
#[derive(Clone, Copy, Debug)]
pub struct ImageSampler<'a> {
    images: &'a Images,
    data_seed: u64,
    batch: usize,
}

impl<'a> ImageSampler<'a> {
    /// `batch` images per step from the training split `images`.
    ///
    /// # Errors
    ///
    /// [`DataError::Zero`] when `batch` is 0 or there is no image.
    pub fn new(images: &'a Images, data_seed: u64, batch: usize) -> Result<Self, DataError> {
        for (what, size) in [("batch", batch), ("images", images.len())] {
            if size == 0 {
                return Err(DataError::Zero { what });
            }
        }
        Ok(Self { images, data_seed, batch })
    }

    /// The numbers of the images of step `step` (from 0), one per row.
    ///
    /// With N training images and batch size B, row i of step t is image `(x * N) >> 64` in 128-bit arithmetic, where
    /// `x = splitmix64(splitmix64(data_seed) + t * B + i)` in wrapping 64-bit arithmetic.
    pub fn indices(&self, step: u64) -> Vec<usize> {
        let first = splitmix64(self.data_seed).wrapping_add(step.wrapping_mul(self.batch as u64));
        let draw = |row: u64| below(splitmix64(first.wrapping_add(row)), self.images.len());
        (0..self.batch as u64).map(draw).collect()
    }

    /// The batch of step `step` (from 0).
    pub fn batch(&self, step: u64) -> ImageBatch {
        ImageBatch::gather(self.images, self.indices(step).into_iter())
    }
}

/// All `images` in order, `rows` at a time (0 counts as 1); the last batch may hold fewer.
pub fn image_batches(images: &Images, rows: usize) -> impl Iterator<Item = ImageBatch> {
    let (count, rows) = (images.len(), rows.max(1));
    (0..count).step_by(rows).map(move |first| ImageBatch::gather(images, first..first.saturating_add(rows).min(count)))
}
