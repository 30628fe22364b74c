//! Values that vectors are loaded from.

/// Values that start on a cache line, or every load of a vector would touch two of them.
pub struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

const LINE_BYTES: usize = 64;

impl<T: Copy> Aligned<T> {
    /// So many of one value.
    pub fn new(len: usize, value: T) -> Self {
        let line = LINE_BYTES / size_of::<T>();
        let values = vec![value; len + line];
        let start = values.as_ptr().align_offset(LINE_BYTES).min(line);
        Self { values, start, len }
    }

    /// The values.
    pub fn get(&self) -> &[T] {
        &self.values[self.start..self.start + self.len]
    }

    /// The values, to write.
    pub fn get_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..self.start + self.len]
    }

    /// The values in a vector, in the same memory.
    pub fn into_vec(self) -> Vec<T> {
        let Self { mut values, start, len } = self;
        values.copy_within(start..start + len, 0);
        values.truncate(len);
        values
    }
}
