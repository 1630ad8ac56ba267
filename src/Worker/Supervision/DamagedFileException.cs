namespace TrainingService.Worker.Supervision;

/// <summary>A stored file is missing, or is not what it was when it was stored. Trying again does not help.</summary>
internal sealed class DamagedFileException(string message) : Exception(message);
