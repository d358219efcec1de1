"""The technician's page: what `status` knows, on a phone. Imported only when the site has `page:`."""
