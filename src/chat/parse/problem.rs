//! Why a call that a model wrote could not be read.

/// Why a call that a model wrote could not be read. The text says it to the model or to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CallProblem {
    /// The opening tag of a call has no name.
    #[error("the opening tag of the call has no name")]
    NoName,
    /// What stands for the name of a call holds tags, line breaks or JSON, and is no offered tool's name.
    #[error("what stands where the call's name belongs is no name")]
    Name,
    /// The opening tag of a parameter has no name, or is not closed.
    #[error("the opening tag of a parameter is not complete")]
    Parameter,
    /// The value of a parameter is not followed by its closing tag.
    #[error("a parameter has no closing tag")]
    Unclosed,
    /// A parameter stands twice.
    #[error("a parameter is given twice")]
    Repeated,
    /// Something else stands where a parameter or the end of the call belongs.
    #[error("the call holds something that is neither a parameter nor its closing tag")]
    Body,
    /// The arguments are not a JSON object.
    #[error("the arguments are not a JSON object")]
    Arguments,
    /// A call begins before the one before it ends.
    #[error("the call has no end before the next one begins")]
    NoEnd,
    /// The block of calls holds no call.
    #[error("the block of calls holds no call")]
    NoCall,
    /// Tags of calls stand alone: no call, and no other text.
    #[error("the text holds tags of calls, but no call")]
    Stray,
    /// The text ends within a call or a tag.
    #[error("the text ends before the call does")]
    CutOff,
}
