using static TorchSharp.torch;

namespace TrainingService.Training.Objectives;

/// <summary>The model of pairwise choices: P(chosen is better) = σ(r_chosen − r_rejected).</summary>
/// <remarks>Bradley and Terry 1952; with margins, Touvron et al. 2023 (arXiv:2307.09288), equation 2; centring, Eisenstein et al. 2023 (arXiv:2312.09244).</remarks>
public static class BradleyTerry
{
    /// <summary>−log σ(r_chosen − r_rejected − margin) + centring·(r_chosen + r_rejected)² of each pair.</summary>
    /// <param name="chosen">[N], float32, or [N, members].</param>
    /// <param name="rejected">Of the same shape.</param>
    /// <param name="margins">[N] or [N, 1], by how much the chosen one should lead; null: 0.</param>
    /// <param name="centring">Pulls the mean of all rewards to zero, which the differences leave open; 0: not at all.</param>
    /// <returns>Of the shape of the rewards, nats, in the caller's dispose scope.</returns>
    public static Tensor Losses(Tensor chosen, Tensor rejected, Tensor? margins = null, double centring = 0)
    {
        using var scope = NewDisposeScope();
        var lead = chosen - rejected;
        if (margins is not null)
        {
            lead = lead - margins;
        }

        var losses = nn.functional.softplus(-lead);
        if (centring > 0)
        {
            losses = losses + (centring * (chosen + rejected).square());
        }

        return losses.MoveToOuterDisposeScope();
    }
}
