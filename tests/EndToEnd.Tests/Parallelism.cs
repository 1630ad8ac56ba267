// Most of these tests wait: for leases to run out, for servers to come back, for processes to start. Two at a time leave two cores half idle.
[assembly: Xunit.v3.Parallelization(MaxThreads = 4)]
