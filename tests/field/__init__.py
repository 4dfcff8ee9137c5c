"""What people met who run such bots, at real processes: proxies, clocks, readers that hang, servers that come late."""
