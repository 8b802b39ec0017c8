"""The channels that notices are delivered by, each over the protocol of those who take them."""
