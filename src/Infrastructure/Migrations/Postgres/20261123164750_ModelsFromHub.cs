using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace TrainingService.Infrastructure.Migrations.Postgres
{
    /// <inheritdoc />
    public partial class ModelsFromHub : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<string>(
                name: "hub_commit",
                table: "models",
                type: "text",
                nullable: true);

            migrationBuilder.AddColumn<string>(
                name: "hub_id",
                table: "models",
                type: "text",
                nullable: true);

            migrationBuilder.AddColumn<string>(
                name: "hub_revision",
                table: "models",
                type: "text",
                nullable: true);
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "hub_commit",
                table: "models");

            migrationBuilder.DropColumn(
                name: "hub_id",
                table: "models");

            migrationBuilder.DropColumn(
                name: "hub_revision",
                table: "models");
        }
    }
}
