using TrainingService.Bench;

// Each prints lines of JSON, one figure each; bench/run.sh calls them and makes one table of all.
using var interrupt = new CancellationTokenSource();
Console.CancelKeyPress += (_, pressed) =>
{
    pressed.Cancel = true;
    interrupt.Cancel();
};
switch (args)
{
    case ["claims"]:
        await Claims.RunAsync(interrupt.Token);
        return 0;
    case ["data"]:
        DataRates.Run(interrupt.Token);
        return 0;
    case ["store"]:
        await StoreRates.RunAsync(interrupt.Token);
        return 0;
    case ["methods", var worker, var page, .. var names]:
        await Methods.RunAsync(worker, page, names, interrupt.Token);
        return 0;
    case ["table", var folder, var command]:
        Table.Write(folder, command);
        return 0;
    default:
        Console.Error.WriteLine("usage: claims | data | store | methods WORKER PAGE [NAME...] | table FOLDER COMMAND; bench/run.sh and bench/methods.sh say what they need");
        return 2;
}
