"""The plugins that come with transferbench, through the door that strangers use."""
