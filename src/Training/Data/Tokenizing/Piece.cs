namespace TrainingService.Training.Data.Tokenizing;

/// <summary>A part of a row's text that carries loss as a whole, or not at all.</summary>
/// <param name="EndsText">Whether the tokenizer's end-of-text token follows, with the loss of the piece.</param>
internal sealed record Piece(string Text, bool Trained, bool EndsText = false);
