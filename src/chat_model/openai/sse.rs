//! Server-sent events as their bytes arrive.

/// The longest line that is read.
const MAX_LINE: usize = 32 << 20;

/// Takes bytes in any chunking, gives the data of events. Comments, other fields and event names are ignored.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    /// The last byte ended a line and was `\r`: a `\n` after it belongs to it.
    after_cr: bool,
    /// The data lines of the event so far.
    data: Option<String>,
}

impl Events {
    /// Takes more bytes; passes on the data of the events that they complete.
    ///
    /// # Errors
    /// A line that is too long, or no UTF-8; and the errors of `on_data`.
    pub fn push<E: From<String>>(
        &mut self,
        mut bytes: &[u8],
        on_data: &mut dyn FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > MAX_LINE {
                return Err(format!("a line of more than {MAX_LINE} bytes").into());
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.end_line(&line, on_data)?;
        }
        Ok(())
    }

    /// The end of the stream: an event whose blank line is missing counts, too, but for a line that breaks off within a
    /// character.
    pub fn finish<E: From<String>>(&mut self, on_data: &mut dyn FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        let cut = std::str::from_utf8(&line).is_err_and(|error| error.error_len().is_none());
        if !line.is_empty() && !cut {
            self.end_line(&line, on_data)?;
        }
        self.end_line(b"", on_data)
    }

    fn end_line<E: From<String>>(
        &mut self,
        line: &[u8],
        on_data: &mut dyn FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::str::from_utf8(line).map_err(|error| E::from(format!("no UTF-8: {error}")))?;
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if line.is_empty() {
            return self.data.take().map_or(Ok(()), |data| on_data(&data));
        }
        if let Some(value) = line.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_string()),
            }
        }
        Ok(())
    }
}
