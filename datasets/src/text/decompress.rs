//! Streams that are decompressed while they are read.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Chain, Cursor, ErrorKind, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::compression::Compression;

/// Bytes that are read at once.
pub(crate) const BLOCK: usize = 1 << 18;

/// The decompressed content of a stream.
pub(crate) fn decompressed(reader: impl BufRead + 'static, compression: Compression) -> Box<dyn Read> {
    match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(Frames { source: reader, decoder: FrameDecoder::new(), inside: false }),
    }
}

/// A reader after the bytes that were already read from it.
type PutBack<R> = Chain<Cursor<Vec<u8>>, R>;

/// The first `count` bytes, or all if there are fewer, and a reader that begins with them again.
pub(crate) fn peek<R: BufRead>(mut reader: R, count: usize) -> std::io::Result<(Vec<u8>, PutBack<R>)> {
    let mut start = Vec::new();
    reader.by_ref().take(count as u64).read_to_end(&mut start)?;
    Ok((start.clone(), Cursor::new(start).chain(reader)))
}

/// A file whose bytes are counted.
pub(crate) fn counted<R: Read>(inner: R, count: &Rc<Cell<u64>>) -> BufReader<Counted<R>> {
    BufReader::with_capacity(BLOCK, Counted { inner, count: count.clone() })
}

/// Counts the bytes that are read.
pub(crate) struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(into)?;
        self.count.set(self.count.get() + length as u64);
        Ok(length)
    }
}

/// All frames of a zstd file, one after the other: some programs write several.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    inside: bool,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame; false at the end of the file.
    fn begin(&mut self) -> std::io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = std::io::copy(&mut self.source.by_ref().take(length.into()), &mut std::io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(damaged("it ends inside a frame"));
                    }
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }

    /// The decoder reads the frame's checksum and computes its own, but leaves the comparison to the caller.
    fn end(&self) -> std::io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(stored), Some(computed)) if stored != computed => Err(damaged("a checksum does not match")),
            _ => Ok(()),
        }
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, error)
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if !self.inside && !self.begin()? {
                return Ok(0);
            }
            self.inside = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1)).map_err(damaged)?;
            }
            let length = self.decoder.read(into)?;
            if length > 0 || into.is_empty() {
                return Ok(length);
            }
            self.end()?;
            self.inside = false;
        }
    }
}
