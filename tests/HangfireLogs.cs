using System.Reflection;
using System.Runtime.CompilerServices;
using Hangfire;
using Hangfire.Logging;
using Hangfire.PostgreSql;

namespace TrainingService.Tests;

internal static class HangfireLogs
{
    /// <summary>
    /// Hangfire keeps loggers in static fields, made from whichever host configured it last. A service has one host; a test process has many,
    /// and the last one may be disposed already. Making those loggers before any host exists keeps tests independent of their order.
    /// </summary>
    [ModuleInitializer]
    internal static void MakeBeforeAnyHost()
    {
        foreach (var type in typeof(PostgreSqlStorage).Assembly.GetTypes())
        {
            const BindingFlags Static = BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.Public;
            if (!type.ContainsGenericParameters && type.GetFields(Static).Any(field => field.FieldType == typeof(ILog)))
            {
                RuntimeHelpers.RunClassConstructor(type.TypeHandle);
            }
        }

        RuntimeHelpers.RunClassConstructor(typeof(GlobalJobFilters).TypeHandle);   // its filters ask for loggers when they are made
    }
}
