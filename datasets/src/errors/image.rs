//! What can be wrong with images.

use std::path::PathBuf;

/// Why a set of images could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The source is neither an embedded set nor a folder.
    #[error(
        "no images `{source_name}`: it is neither an embedded set of images ({embedded}) nor an existing folder with the \
         four IDX files of an MNIST-like set{hint}"
    )]
    Unknown {
        /// The source that was given.
        source_name: String,
        /// The names of the embedded sets, comma separated.
        embedded: String,
        /// A suggestion that begins with a semicolon.
        hint: String,
    },
    /// The source is an embedded text.
    #[error(
        "`{name}` is a text, not a set of images: use `digits` or a folder of IDX files, or train a language model"
    )]
    NotImages {
        /// Name of the text.
        name: String,
    },
    /// One of the four files is missing.
    #[error(
        "the folder `{}` has no `{name}` and no `{name}.gz`: put the four IDX files of an MNIST-like set there (the \
         Debian package `dataset-fashion-mnist` installs them in /usr/share/datasets/fashion-mnist; MNIST itself is at \
         https://yann.lecun.com/exdb/mnist/)",
        folder.display()
    )]
    FileMissing {
        /// The folder.
        folder: PathBuf,
        /// Name of the missing file.
        name: String,
    },
    /// A file exists but could not be read.
    #[error("the file `{}` cannot be read ({source}): check its permissions and the disk", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A gzip stream is damaged.
    #[error("the file `{}` cannot be decompressed ({source}): it is damaged, download it again", path.display())]
    BadGzip {
        /// The file.
        path: PathBuf,
        /// The error of the decompressor.
        source: std::io::Error,
    },
    /// The file is not of the expected kind.
    #[error(
        "the file `{}` begins with {found:#010x}, but this kind of IDX file begins with {expected:#010x}: put the right \
         file there, images and labels may have been swapped",
        path.display()
    )]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        found: u32,
        /// What they must be.
        expected: u32,
    },
    /// The length of the file is not that of its header.
    #[error(
        "the file `{}` has {found} bytes (decompressed), but its header asks for {expected}: it is damaged or truncated, \
         download it again",
        path.display()
    )]
    BadLength {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        found: usize,
        /// Bytes needed.
        expected: String,
    },
    /// According to the header there is no image.
    #[error("the file `{}` has no images: put a file with images there", path.display())]
    NoImages {
        /// The file.
        path: PathBuf,
    },
    /// Images and labels differ in number.
    #[error(
        "`{}` has {images} images, but `{}` has {labels} labels: use files of the same set",
        images_path.display(),
        labels_path.display()
    )]
    CountMismatch {
        /// The file of images.
        images_path: PathBuf,
        /// Number of images.
        images: usize,
        /// The file of labels.
        labels_path: PathBuf,
        /// Number of labels.
        labels: usize,
    },
    /// Training and validation images differ in size.
    #[error(
        "the images in `{}` are {} x {} pixels, but the training images are {} x {}: use four files of the same set",
        path.display(), found[0], found[1], expected[0], expected[1]
    )]
    ShapeMismatch {
        /// The file of validation images.
        path: PathBuf,
        /// Their height and width.
        found: [usize; 2],
        /// Height and width of the training images.
        expected: [usize; 2],
    },
    /// A split of an embedded set has no images.
    #[error("`valid_fraction` {valid_fraction} leaves the {split} split of `{name}` without images: 0.2 is usual")]
    EmptySplit {
        /// Name of the set.
        name: String,
        /// "training" or "validation".
        split: &'static str,
        /// The fraction for validation.
        valid_fraction: f64,
    },
}
