"""The management API: TM Forum's prepay balance management and the operator's own resources, over HTTP."""
