//! IDX, the file format of MNIST and the sets made after it: two zero bytes, an element type (8 is unsigned bytes),
//! the number of dimensions, every dimension as a big-endian u32, then the elements.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::errors::{DataError, ImageError};

/// The first four bytes of a file of images: three dimensions of unsigned bytes.
const IMAGES: u32 = 0x0803;
/// The first four bytes of a file of labels: one dimension of unsigned bytes.
const LABELS: u32 = 0x0801;
/// The start of every gzip stream. IDX begins with two zeros, so the content alone distinguishes the two.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Images as they are in a file.
pub(super) struct RawImages {
    pub count: usize,
    /// Height and width.
    pub shape: [usize; 2],
    /// `[count, height, width]`.
    pub pixels: Vec<u8>,
    pub path: PathBuf,
}

/// Reads `name` in `folder`, with or without the ending `.gz`.
pub(super) fn read_images(folder: &Path, name: &str) -> Result<RawImages, DataError> {
    let (path, bytes) = read(folder, name)?;
    let ([count, height, width], pixels) = parse(&path, bytes, IMAGES)?;
    if count == 0 || height == 0 || width == 0 {
        return Err(ImageError::NoImages { path }.into());
    }
    Ok(RawImages { count, shape: [height, width], pixels, path })
}

/// Reads the labels that belong to `images`.
pub(super) fn read_labels(folder: &Path, name: &str, images: &RawImages) -> Result<Vec<u8>, DataError> {
    let (path, bytes) = read(folder, name)?;
    let ([count], labels) = parse(&path, bytes, LABELS)?;
    if count != images.count {
        let (images_path, images) = (images.path.clone(), images.count);
        return Err(ImageError::CountMismatch { images_path, images, labels_path: path, labels: count }.into());
    }
    Ok(labels)
}

fn read(folder: &Path, name: &str) -> Result<(PathBuf, Vec<u8>), DataError> {
    for path in [folder.join(name), folder.join(format!("{name}.gz"))] {
        match std::fs::read(&path) {
            Ok(bytes) => return Ok((path.clone(), decompress(&path, bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(ImageError::Unreadable { path, source }.into()),
        }
    }
    Err(ImageError::FileMissing { folder: folder.into(), name: name.into() }.into())
}

fn decompress(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, DataError> {
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut content = Vec::new();
    let result = MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut content);
    result.map(|_| content).map_err(|source| ImageError::BadGzip { path: path.into(), source }.into())
}

/// The dimensions and the elements of a file that must begin with `magic`.
fn parse<const D: usize>(path: &Path, mut bytes: Vec<u8>, magic: u32) -> Result<([usize; D], Vec<u8>), DataError> {
    let path = || path.to_path_buf();
    let number = |index: usize| {
        let word = bytes.get(4 * index..4 * index + 4)?;
        word.iter().try_fold(0_u32, |number, byte| Some(number << 8 | u32::from(*byte)))
    };
    let header = 4 * (D + 1);
    let short = || ImageError::BadLength { path: path(), found: bytes.len(), expected: format!("at least {header}") };
    let found = number(0).ok_or_else(short)?;
    if found != magic {
        return Err(ImageError::BadMagic { path: path(), found, expected: magic }.into());
    }
    let mut dimensions = [0; D];
    for (index, dimension) in dimensions.iter_mut().enumerate() {
        *dimension = number(index + 1).ok_or_else(short)? as usize;
    }
    // A damaged header may ask for more than any machine has, so the product is checked before it is used.
    let elements = dimensions.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    let expected = elements.and_then(|elements| elements.checked_add(header));
    if expected != Some(bytes.len()) {
        let expected = expected.map_or("more than this machine can address".into(), |bytes| bytes.to_string());
        return Err(ImageError::BadLength { path: path(), found: bytes.len(), expected }.into());
    }
    Ok((dimensions, bytes.split_off(header)))
}
