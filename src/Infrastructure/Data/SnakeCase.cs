using System.Text.Json;
using Microsoft.EntityFrameworkCore;

namespace TrainingService.Infrastructure.Data;

/// <summary>Names columns, keys and indexes the way SQL is written by hand: <c>snake_case</c>, no quotes needed.</summary>
internal static class SnakeCase
{
    internal static void Apply(ModelBuilder model)
    {
        foreach (var entity in model.Model.GetEntityTypes())
        {
            var prefix = entity.IsOwned() && entity.FindOwnership()!.IsUnique
                ? Of(entity.FindOwnership()!.PrincipalToDependent!.Name) + "_"
                : "";
            foreach (var property in entity.GetProperties())
            {
                if (!(prefix.Length > 0 && property.IsPrimaryKey()))
                {
                    property.SetColumnName(prefix + Of(property.Name));
                }
            }

            var table = entity.GetTableName();
            foreach (var key in entity.GetKeys())
            {
                if (prefix.Length == 0)
                {
                    key.SetName(key.IsPrimaryKey() ? $"pk_{table}" : $"ak_{table}_{Of(string.Join("_", key.Properties.Select(p => p.Name)))}");
                }
            }

            foreach (var foreign in entity.GetForeignKeys())
            {
                if (prefix.Length == 0)
                {
                    foreign.SetConstraintName($"fk_{table}_{foreign.PrincipalEntityType.GetTableName()}");
                }
            }

            foreach (var index in entity.GetIndexes())
            {
                index.SetDatabaseName($"ix_{table}_{string.Join("_", index.Properties.Select(p => Of(p.Name)))}");
            }
        }
    }

    private static string Of(string name) => JsonNamingPolicy.SnakeCaseLower.ConvertName(name);
}
