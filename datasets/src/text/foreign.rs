//! Files that are not text, recognised by their first bytes and their name.

use std::path::Path;

use super::compression::{Compression, bare, inner_ending, with_suffix};
use super::encoding::{self, Encoding};
use crate::errors::DataError;
use crate::quote::quoted;

/// A kind of file that is not text.
struct Kind {
    /// The bytes at the front; empty if only the name tells.
    magic: &'static [u8],
    /// Endings, in lower case.
    endings: &'static [&'static str],
    what: &'static str,
    /// What to do; `{file}`, `{bare}`, `{text}`, `{lines}` and `{folder}` are replaced by quoted paths.
    advice: &'static str,
}

const fn kind(
    magic: &'static [u8],
    endings: &'static [&'static str],
    what: &'static str,
    advice: &'static str,
) -> Kind {
    Kind { magic, endings, what, advice }
}

const PANDOC: &str = "convert it to text with `pandoc -t plain {file} -o {text}`";
const UNZIP: &str = "unpack it with `unzip {file}` and give the text files in it";
const NUMBERS: &str = "it has numbers; give the text that they were made from";
const MEDIA: &str = "give a text file";
const FEATHER: &str = "convert it to lines of JSON with `python3 -c 'import sys, pandas; pandas.read_feather(sys.argv[1]).to_json(sys.argv[2], \
                       orient=\"records\", lines=True)' {file} {lines}`";
const WEIGHTS: &str = "a model is not trained on weights; give a text file";

/// The first that matches counts.
const KINDS: &[Kind] = &[
    kind(
        b"POLARTOK",
        &[],
        "a shard of packed tokens",
        "give the folder that it is in: `polaron train --data {folder}`",
    ),
    kind(b"PAR1", &[], "a Parquet table", "give it a name that ends in .parquet"),
    kind(b"ARROW1", &["arrow", "feather"], "an Arrow table", FEATHER),
    kind(b"FEA1", &["feather"], "an Arrow table", FEATHER),
    kind(
        b"\xff\xff\xff\xff",
        &["arrow"],
        "a stream of Arrow records",
        "convert it to lines of JSON with `python3 -c 'import sys, pyarrow.ipc as i; i.open_stream(sys.argv[1]).read_pandas().to_json(\
         sys.argv[2], orient=\"records\", lines=True)' {file} {lines}`",
    ),
    kind(
        b"ORC",
        &["orc"],
        "an ORC table",
        "convert it to lines of JSON with `python3 -c 'import sys, pandas; pandas.read_orc(sys.argv[1]).to_json(sys.argv[2], \
         orient=\"records\", lines=True)' {file} {lines}`",
    ),
    kind(b"Obj\x01", &["avro"], "an Avro table", "convert it to lines of JSON with `fastavro {file} > {lines}`"),
    kind(b"BZh", &["bz2"], "bzip2 data", "decompress it with `bzip2 -dc {file} > {bare}` and give {bare}"),
    kind(b"\xfd7zXZ\0", &["xz"], "xz data", "decompress it with `xz -dc {file} > {bare}` and give {bare}"),
    kind(b"\x5d\0\0", &["lzma"], "lzma data", "decompress it with `xz -dc {file} > {bare}` and give {bare}"),
    kind(b"\x04\x22\x4d\x18", &["lz4"], "lz4 data", "decompress it with `lz4 -dc {file} > {bare}` and give {bare}"),
    kind(b"\x1f\x9d", &["z"], "data of `compress`", "decompress it with `gzip -dc {file} > {bare}` and give {bare}"),
    kind(b"", &["br"], "Brotli data", "decompress it with `brotli -dc {file} > {bare}` and give {bare}"),
    kind(
        b"7z\xbc\xaf\x27\x1c",
        &["7z"],
        "a 7-Zip archive",
        "unpack it with `7z x {file}` and give the text files in it",
    ),
    kind(b"Rar!", &["rar"], "a RAR archive", "unpack it with `unrar x {file}` and give the text files in it"),
    kind(b"PK\x03\x04", &["docx"], "a Word document", PANDOC),
    kind(b"PK\x03\x04", &["odt"], "an OpenDocument text", PANDOC),
    kind(b"PK\x03\x04", &["epub"], "an EPUB book", PANDOC),
    kind(b"PK\x03\x04", &["xlsx", "ods"], "a spreadsheet", "export its text as a .txt file"),
    kind(b"PK\x03\x04", &["npz"], "an archive of NumPy arrays", NUMBERS),
    kind(b"PK\x03\x04", &["pt", "pth", "bin", "ckpt"], "an archive of PyTorch tensors", WEIGHTS),
    kind(b"PK\x03\x04", &["zip"], "a zip archive", UNZIP),
    kind(b"PK\x05\x06", &["zip"], "an empty zip archive", UNZIP),
    kind(b"%PDF", &["pdf"], "a PDF document", "convert it to text with `pdftotext {file} {text}`"),
    kind(b"{\\rtf", &["rtf"], "an RTF document", PANDOC),
    kind(b"\xd0\xcf\x11\xe0", &["doc", "xls", "ppt"], "an old Office document", "save it as plain text in UTF-8"),
    kind(b"\x93NUMPY", &["npy"], "a NumPy array", NUMBERS),
    kind(b"\x89HDF", &["h5", "hdf5", "hdf"], "an HDF5 file", NUMBERS),
    kind(b"GGUF", &["gguf"], "weights in the GGUF format", WEIGHTS),
    kind(b"\x80\x02", &["pkl", "pickle", "pt", "pth"], "a Python pickle", "write its text to a .txt file from Python"),
    kind(b"\x80\x03", &["pkl", "pickle"], "a Python pickle", "write its text to a .txt file from Python"),
    kind(b"\x80\x04", &["pkl", "pickle"], "a Python pickle", "write its text to a .txt file from Python"),
    kind(b"\x80\x05", &["pkl", "pickle"], "a Python pickle", "write its text to a .txt file from Python"),
    kind(
        b"\0\0\x08\x03",
        &[],
        "an IDX file of images",
        "train a perceptron on its folder: `polaron train --model mlp --data {folder}`",
    ),
    kind(
        b"\0\0\x08\x01",
        &[],
        "an IDX file of labels",
        "train a perceptron on its folder: `polaron train --model mlp --data {folder}`",
    ),
    kind(
        b"SQLite format 3\0",
        &["sqlite", "sqlite3", "db"],
        "an SQLite database",
        "write its text out with `sqlite3 {file}`",
    ),
    kind(b"\x89PNG", &["png"], "a PNG image", MEDIA),
    kind(b"\xff\xd8\xff", &["jpg", "jpeg"], "a JPEG image", MEDIA),
    kind(b"GIF8", &["gif"], "a GIF image", MEDIA),
    kind(b"RIFF", &["wav", "webp", "avi"], "a RIFF media file", MEDIA),
    kind(b"OggS", &["ogg", "opus"], "an Ogg media file", MEDIA),
    kind(b"ID3", &["mp3"], "an MP3 file", MEDIA),
    kind(b"fLaC", &["flac"], "a FLAC file", MEDIA),
    kind(b"\x7fELF", &["so", "o"], "a program (ELF)", MEDIA),
    kind(b"MZ", &["exe", "dll"], "a program for Windows", MEDIA),
];

/// Kinds without a signature at the front: the ending of the name tells them, and counts only for content that is not text.
const BY_NAME: &[(&[&str], &str)] = &[
    (&["bin", "dat"], "binary data, perhaps tokens from another program,"),
    (&["tfrecord"], "a TFRecord file"),
    (&["idx", "pack"], "binary data"),
];

/// Refuses content that is not UTF-8 text and names what it is. `start` is the front of the (decompressed) content, without a byte
/// order mark of UTF-8.
pub(crate) fn check(path: &Path, compression: Compression, start: &[u8]) -> Result<(), DataError> {
    if let Some(encoding) = Encoding::of_mark(start) {
        return Err(encoding::wrong(path, compression, encoding));
    }
    let (name, clean) = (inner_ending(path), is_clean(start));
    let fits = |kind: &&Kind| {
        let named = kind.endings.contains(&name.as_str());
        // Letters at the front of a text prove nothing.
        let telling = !clean && (encoding::is_binary(start) || !kind.magic.iter().all(u8::is_ascii_alphanumeric));
        match kind.magic {
            [] => named && !clean,
            magic => start.starts_with(magic) && (named || telling),
        }
    };
    let candidates = || KINDS.iter().filter(fits);
    let named = candidates().find(|kind| kind.endings.contains(&name.as_str()));
    let generic = || candidates().find(|kind| !kind.magic.starts_with(b"PK\x03") || kind.endings == ["zip"]);
    if let Some(kind) = named.or_else(generic) {
        return Err(foreign(path, compression, kind.what, kind.advice));
    }
    if start.get(257..262) == Some(b"ustar") {
        let what = "a tar archive";
        let advice = format!("unpack it with `tar xf {}` and pack the folder", quoted(path));
        return Err(DataError::Foreign { path: path.into(), what: what.into(), advice });
    }
    if is_safetensors(start) {
        return Err(foreign(path, compression, "weights in the safetensors format", WEIGHTS));
    }
    if clean {
        return Ok(());
    }
    if let Some((_, what)) = BY_NAME.iter().find(|(endings, _)| endings.contains(&name.as_str())) {
        return Err(foreign(path, compression, what, NUMBERS));
    }
    if let Some(encoding) = Encoding::without_mark(start) {
        return Err(encoding::wrong(path, compression, encoding));
    }
    if encoding::is_binary(start) {
        return Err(foreign(path, compression, "binary data", "give a text file; `file {file}` may say what it is"));
    }
    Ok(())
}

/// A JSON document that is not lines of records.
pub(crate) fn json_document(path: &Path, compression: Compression, is_array: bool) -> DataError {
    let advice = if is_array {
        "write one record per line with `jq -c '.[]' {file} > {lines}` and give {lines}"
    } else {
        "write one record per line with `jq -c . {file} > {lines}` and give {lines}"
    };
    foreign(path, compression, "one JSON document, not lines of JSON,", advice)
}

/// A table inside compressed data, where it cannot be read in any order.
pub(crate) fn compressed_table(path: &Path, compression: Compression) -> DataError {
    foreign(path, compression, "a Parquet table", "give {file}")
}

fn foreign(path: &Path, compression: Compression, what: &str, advice: &str) -> DataError {
    let (before, file) = if compression == Compression::None {
        (String::new(), path.to_path_buf())
    } else {
        let target = bare(path);
        let program = compression.program();
        (format!("decompress it with `{program} -dc {} > {}`, then ", quoted(path), quoted(&target)), target)
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let advice = advice
        .replace("{file}", &quoted(&file))
        .replace("{bare}", &quoted(&bare(&file)))
        .replace("{text}", &quoted(&with_suffix(&file, ".txt")))
        .replace("{lines}", &quoted(&with_suffix(&file, ".jsonl")))
        .replace("{folder}", &quoted(folder));
    let inside =
        if compression == Compression::None { String::new() } else { format!(" (inside {})", compression.program()) };
    DataError::Foreign { path: path.into(), what: format!("{what}{inside}"), advice: format!("{before}{advice}") }
}

/// Whether it is UTF-8 without a zero byte; a character at the end may be cut.
fn is_clean(start: &[u8]) -> bool {
    let valid = std::str::from_utf8(start).err().is_none_or(|error| error.error_len().is_none());
    valid && !start.contains(&0) && !encoding::is_binary(start)
}

/// Whether there are eight bytes with the length of a JSON header, then the header.
fn is_safetensors(start: &[u8]) -> bool {
    let length = start.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    length.is_some_and(|length| length < 1 << 32) && start.get(8..10) == Some(b"{\"")
}
