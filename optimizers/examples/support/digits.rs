//! Generated digits: seven-segment figures with random position, brightness and noise.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Side of the image.
const SIDE: usize = 16;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;
/// Digits 0 to 9.
pub const CLASSES: usize = 10;

/// Which of the segments top, upper left, upper right, middle, lower left, lower right, bottom are lit.
const SEGMENTS: [u8; CLASSES] =
    [0b1110111, 0b0010010, 0b1011101, 0b1011011, 0b0111010, 0b1101011, 0b1101111, 0b1010010, 0b1111111, 0b1111011];

/// A small generator: the same step gives the same batch.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }

    fn unit(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 20) as f32
    }
}

/// `count` images `[count, PIXELS]` with values around 0 to 1, and their labels `[count]`.
pub fn batch(step: usize, count: usize, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let mut random = Random(step as u64 ^ 0x5DEECE66D);
    let mut pixels = Vec::with_capacity(count * PIXELS);
    let mut labels = Vec::with_capacity(count);
    for _ in 0..count {
        let digit = random.below(CLASSES);
        labels.push(digit as i32);
        draw(digit, &mut random, &mut pixels);
    }
    let images = Tensor::from_data(TensorData::new(pixels, [count, PIXELS]), device);
    (images, Tensor::from_data(TensorData::new(labels, [count]), device))
}

fn draw(digit: usize, random: &mut Random, pixels: &mut Vec<f32>) {
    let (left, top) = (2 + random.below(5), 1 + random.below(4));
    let brightness = 0.5 + 0.5 * random.unit();
    let lit = |segment: usize| SEGMENTS[digit] >> (6 - segment) & 1 == 1;
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (dx, dy) = (x.wrapping_sub(left), y.wrapping_sub(top));
            let inside = dx <= 6 && dy <= 10;
            let on = inside
                && ((lit(0) && dy == 0)
                    || (lit(3) && dy == 5)
                    || (lit(6) && dy == 10)
                    || (lit(1) && dx == 0 && dy <= 5)
                    || (lit(2) && dx == 6 && dy <= 5)
                    || (lit(4) && dx == 0 && dy >= 5)
                    || (lit(5) && dx == 6 && dy >= 5));
            let noise = 0.6 * (random.unit() - 0.5);
            pixels.push(if on { brightness + noise } else { noise });
        }
    }
}
