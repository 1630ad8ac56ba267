using Microsoft.EntityFrameworkCore;
using TrainingService.Domain.Artifacts;
using TrainingService.Domain.Files;
using TrainingService.Domain.Jobs;
using TrainingService.Domain.Models;
using TrainingService.Domain.Projects;

namespace TrainingService.Infrastructure.Data;

/// <summary>Tables, keys, lengths and indexes.</summary>
internal static class Mapping
{
    internal static void Apply(ModelBuilder model, string json)
    {
        MapProjects(model, json);
        MapJobs(model, json);
        MapStory(model, json);
        model.Entity<IdempotencyRecord>(record =>
        {
            record.ToTable("idempotency_records");
            record.HasKey(r => new { r.ProjectId, r.Key });
            record.Property(r => r.Key).HasMaxLength(256);
            record.HasOne<TrainingJob>().WithMany().HasForeignKey(r => r.JobId);
        });
    }

    private static void MapProjects(ModelBuilder model, string json)
    {
        model.Entity<Project>(project =>
        {
            project.ToTable("projects");
            project.Property(p => p.Id).ValueGeneratedNever();
            project.HasIndex(p => p.Name).IsUnique();
            project.HasData(new Project { Id = Project.BuiltIn, Name = "default", CreatedAt = DateTimeOffset.UnixEpoch });
        });
        model.Entity<DataFile>(file =>
        {
            file.ToTable("files");
            file.Property(f => f.Id).ValueGeneratedNever();
            file.HasIndex(f => new { f.ProjectId, f.CreatedAt, f.Id });
            file.HasOne<Project>().WithMany().HasForeignKey(f => f.ProjectId).OnDelete(DeleteBehavior.Restrict);
        });
        model.Entity<Upload>(upload =>
        {
            upload.ToTable("uploads");
            upload.Property(u => u.Id).ValueGeneratedNever();
            upload.HasIndex(u => new { u.Status, u.ExpiresAt });
            upload.HasOne<Project>().WithMany().HasForeignKey(u => u.ProjectId).OnDelete(DeleteBehavior.Restrict);
        });
        model.Entity<UploadPart>(part =>
        {
            part.ToTable("upload_parts");
            part.Property(p => p.Id).ValueGeneratedNever();
            part.HasIndex(p => p.UploadId);
            part.HasOne<Upload>().WithMany().HasForeignKey(p => p.UploadId);
        });
        model.Entity<BaseModel>(baseModel =>
        {
            baseModel.ToTable("models");
            baseModel.Property(m => m.Id).ValueGeneratedNever();
            baseModel.Property(m => m.FilesJson).HasColumnType(json);
            baseModel.HasIndex(m => new { m.ProjectId, m.Name }).IsUnique();
            baseModel.HasOne<Project>().WithMany().HasForeignKey(m => m.ProjectId).OnDelete(DeleteBehavior.Restrict);
        });
    }

    private static void MapJobs(ModelBuilder model, string json) => model.Entity<TrainingJob>(job =>
    {
        job.ToTable("jobs");
        job.Property(j => j.Id).ValueGeneratedNever();
        // Spec and request stay text: jsonb would reorder their members, and the first of a spec's patterns that fits a layer counts.
        job.Property(j => j.MetadataJson).HasColumnType(json);
        job.HasOne<Project>().WithMany().HasForeignKey(j => j.ProjectId).OnDelete(DeleteBehavior.Restrict);
        job.HasIndex(j => new { j.Status, j.Priority, j.CreatedAt });
        job.HasIndex(j => new { j.ProjectId, j.CreatedAt, j.Id });
        job.HasIndex(j => j.FineTunedModel).IsUnique().HasFilter("fine_tuned_model IS NOT NULL");
        job.OwnsOne(j => j.Failure);
        job.OwnsMany(j => j.History, history =>
        {
            history.ToTable("job_transitions");
            history.WithOwner().HasForeignKey("JobId");
            history.HasKey("JobId", nameof(JobTransition.Ordinal));
            history.Property(t => t.Ordinal).ValueGeneratedNever();
        });
        job.HasMany(j => j.Events).WithOne().HasForeignKey(e => e.JobId);
    });

    private static void MapStory(ModelBuilder model, string json)
    {
        model.Entity<JobEvent>(line =>
        {
            line.ToTable("job_events");
            line.HasKey(e => new { e.JobId, e.Sequence });
            line.Property(e => e.Sequence).ValueGeneratedNever();
            line.HasIndex(e => e.Id).IsUnique();
            line.Property(e => e.DataJson).HasColumnType(json);
        });
        model.Entity<JobMetric>(metric =>
        {
            metric.ToTable("job_metrics");
            metric.HasKey(m => new { m.JobId, m.Step, m.Kind });
            metric.Property(m => m.ValuesJson).HasColumnType(json);
            metric.HasOne<TrainingJob>().WithMany().HasForeignKey(m => m.JobId);
        });
        model.Entity<JobCheckpoint>(checkpoint =>
        {
            checkpoint.ToTable("job_checkpoints");
            checkpoint.Property(c => c.Id).ValueGeneratedNever();
            checkpoint.Property(c => c.MetricsJson).HasColumnType(json);
            checkpoint.HasIndex(c => new { c.JobId, c.Attempt, c.Step }).IsUnique();
            checkpoint.HasOne<TrainingJob>().WithMany().HasForeignKey(c => c.JobId);
        });
        model.Entity<JobLog>(log =>
        {
            log.ToTable("job_logs");
            log.HasKey(l => l.JobId);
            log.Property(l => l.JobId).ValueGeneratedNever();
            log.HasOne<TrainingJob>().WithOne().HasForeignKey<JobLog>(l => l.JobId);
        });
        model.Entity<Artifact>(artifact =>
        {
            artifact.ToTable("artifacts");
            artifact.Property(a => a.Id).ValueGeneratedNever();
            artifact.HasIndex(a => new { a.JobId, a.Attempt, a.Path }).IsUnique();
            artifact.HasOne<TrainingJob>().WithMany().HasForeignKey(a => a.JobId);
        });
    }
}
