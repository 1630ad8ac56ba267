using System.Security.Cryptography;
using System.Text;

namespace TrainingService.Infrastructure.Hub;

/// <summary>One file of a repository as the hub declares it.</summary>
/// <param name="Path">A plain file name.</param>
/// <param name="Sha256">Of a file that the hub keeps as a large one (LFS).</param>
/// <param name="GitSha1">Git's name of the content of any other file.</param>
public sealed record HubFile(string Path, long Bytes, string? Sha256, string? GitSha1)
{
    public string HashName => Sha256 is null ? "git sha1" : "sha256";

    public string Hash => Sha256 ?? GitSha1 ?? throw new InvalidOperationException($"{Path} has no hash.");

    /// <summary>The hash that the whole content will have to fit.</summary>
    internal IncrementalHash NewHash()
    {
        if (Sha256 is not null)
        {
            return IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        }

        // Git hashes a header before the content.
        var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
        hash.AppendData(Encoding.ASCII.GetBytes(FormattableString.Invariant($"blob {Bytes}\0")));
        return hash;
    }
}

/// <summary>A model's repository at one commit: the files that training needs, and no other.</summary>
/// <param name="Files">Configuration, tokenizer, index of the shards, and every file of weights that the folder holds.</param>
public sealed record HubRepository(HubModelId Id, string Commit, IReadOnlyList<HubFile> Files);
