using System;
using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace TrainingService.Infrastructure.Migrations.Postgres
{
    /// <inheritdoc />
    public partial class JobLife : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<DateTimeOffset>(
                name: "attempt_started_at",
                table: "jobs",
                type: "timestamp with time zone",
                nullable: true);

            migrationBuilder.AddColumn<int>(
                name: "failure_count",
                table: "jobs",
                type: "integer",
                nullable: false,
                defaultValue: 0);

            migrationBuilder.AddColumn<int>(
                name: "max_run_seconds",
                table: "jobs",
                type: "integer",
                nullable: true);

            migrationBuilder.AddColumn<DateTimeOffset>(
                name: "pause_requested_at",
                table: "jobs",
                type: "timestamp with time zone",
                nullable: true);

            migrationBuilder.AddColumn<double>(
                name: "run_seconds",
                table: "jobs",
                type: "double precision",
                nullable: false,
                defaultValue: 0.0);

            migrationBuilder.AddColumn<DateTimeOffset>(
                name: "stalled_since",
                table: "jobs",
                type: "timestamp with time zone",
                nullable: true);
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "attempt_started_at",
                table: "jobs");

            migrationBuilder.DropColumn(
                name: "failure_count",
                table: "jobs");

            migrationBuilder.DropColumn(
                name: "max_run_seconds",
                table: "jobs");

            migrationBuilder.DropColumn(
                name: "pause_requested_at",
                table: "jobs");

            migrationBuilder.DropColumn(
                name: "run_seconds",
                table: "jobs");

            migrationBuilder.DropColumn(
                name: "stalled_since",
                table: "jobs");
        }
    }
}
