using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace TrainingService.Infrastructure.Migrations.Sqlite
{
    /// <inheritdoc />
    public partial class JobLife : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<long>(
                name: "attempt_started_at",
                table: "jobs",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.AddColumn<int>(
                name: "failure_count",
                table: "jobs",
                type: "INTEGER",
                nullable: false,
                defaultValue: 0);

            migrationBuilder.AddColumn<int>(
                name: "max_run_seconds",
                table: "jobs",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.AddColumn<long>(
                name: "pause_requested_at",
                table: "jobs",
                type: "INTEGER",
                nullable: true);

            migrationBuilder.AddColumn<double>(
                name: "run_seconds",
                table: "jobs",
                type: "REAL",
                nullable: false,
                defaultValue: 0.0);

            migrationBuilder.AddColumn<long>(
                name: "stalled_since",
                table: "jobs",
                type: "INTEGER",
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
