//! The records of a TensorBoard event file.
//!
//! A record is the length of its data (8 bytes), a checksum of that length, the data, and a checksum of the data; numbers are
//! little-endian. The data are a protocol buffer `Event`, of which only these fields are written: `wall_time` (1), `step` (2),
//! `file_version` (3), `summary` (5) with values of `tag` (1) and `simple_value` (2), `session_log` (7) with `status` (1).

/// Added to a rotated checksum, so that the checksum of data that hold checksums is not a simple one.
const MASK: u32 = 0xa282_ead8;
/// The version that readers expect in the first record.
const VERSION: &str = "brain.Event:2";

/// The records at the front of a file: its version, and that a session starts, before which a reader that followed an earlier
/// file of the same run forgets its events.
pub fn head(wall_time: f64) -> Vec<u8> {
    let version = [time(wall_time), bytes(3, VERSION.as_bytes())].concat();
    let start = [time(wall_time), bytes(7, &varint(1, 1))].concat();
    [record(&version), record(&start)].concat()
}

/// A record of numbers by name.
pub fn scalars(wall_time: f64, step: u64, values: &[(String, f64)]) -> Vec<u8> {
    let value = |(tag, number): &(String, f64)| {
        let number = [vec![0x15], (*number as f32).to_le_bytes().into()].concat();
        bytes(1, &[bytes(1, tag.as_bytes()), number].concat())
    };
    let summary: Vec<u8> = values.iter().flat_map(value).collect();
    record(&[time(wall_time), varint(2, step), bytes(5, &summary)].concat())
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, checksum(&length).as_slice(), data, &checksum(data)].concat()
}

fn checksum(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK).to_le_bytes()
}

/// The field `wall_time`.
fn time(seconds: f64) -> Vec<u8> {
    [vec![0x09], seconds.to_le_bytes().into()].concat()
}

/// A field that holds a whole number.
fn varint(field: u8, number: u64) -> Vec<u8> {
    [vec![field << 3], base_128(number)].concat()
}

/// A field that holds text or another message.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], base_128(content.len() as u64), content.into()].concat()
}

/// Seven bits to a byte, the lowest first; the highest bit says that more follow.
fn base_128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by the Python package tensorboard 2.20:
    //   from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    //   from tensorboard.compat.proto.summary_pb2 import Summary
    //   from tensorboard.summary.writer.record_writer import RecordWriter
    //   values = [Summary.Value(tag="train/loss", simple_value=2.5), Summary.Value(tag="train/lr", simple_value=0.02)]
    //   for event in [Event(wall_time=1.5, file_version="brain.Event:2"),
    //                 Event(wall_time=1.5, session_log=SessionLog(status=SessionLog.START)),
    //                 Event(wall_time=2.25, step=300, summary=Summary(value=values))]:
    //       file = io.BytesIO(); RecordWriter(file).write(event.SerializeToString()); print(file.getvalue().hex())
    #[test]
    fn records_are_those_that_tensorboard_writes() {
        assert_eq!(
            hex::encode(head(1.5)),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c\
             0d000000000000003c37b83409000000000000f83f3a020801b718825c"
        );
        let values = [("train/loss".to_owned(), 2.5), ("train/lr".to_owned(), 0.02)];
        assert_eq!(
            hex::encode(scalars(2.25, 300, &values)),
            "3200000000000000241956ec09000000000000024010ac022a240a110a0a747261696e2f6c6f737315000020400a0f0a08747261696e\
             2f6c72150ad7a33c0c62dd63"
        );
    }

    #[test]
    fn large_numbers_take_more_bytes() {
        assert_eq!([0, 127, 128, 300].map(base_128), [vec![0], vec![127], vec![128, 1], vec![172, 2]]);
        assert_eq!(base_128(u64::MAX).len(), 10);
    }
}
