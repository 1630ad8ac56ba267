using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Domain.Projects;

namespace TrainingService.Infrastructure;

/// <summary>The rows of the service, on Postgres or SQLite.</summary>
public sealed class AppDbContext(DbContextOptions<AppDbContext> options) : DbContext(options)
{
    public DbSet<Project> Projects => Set<Project>();

    public DbSet<DataFile> Files => Set<DataFile>();

    public DbSet<BaseModel> Models => Set<BaseModel>();

    public DbSet<TrainingJob> Jobs => Set<TrainingJob>();

    public DbSet<JobEvent> Events => Set<JobEvent>();

    public DbSet<JobMetric> Metrics => Set<JobMetric>();

    public DbSet<JobCheckpoint> Checkpoints => Set<JobCheckpoint>();

    public DbSet<Artifact> Artifacts => Set<Artifact>();

    public DbSet<IdempotencyRecord> IdempotencyRecords => Set<IdempotencyRecord>();
}
